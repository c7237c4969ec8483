// Turns a log-mel spectrogram into a sound, as aejax.sound.Mel.sound does: multiplicative updates
// find the magnitudes of each frame's spectrum, and Griffin-Lim finds their phases.

// Replaces re + i im by its discrete Fourier transform; the sign 1 is the inverse, times the size.
function fft(re, im, sign) {
  const n = re.length;
  for (let i = 1, j = 0; i < n; i++) {
    let bit = n >> 1;
    for (; j & bit; bit >>= 1) j ^= bit;
    j ^= bit;
    if (i < j) {
      [re[i], re[j]] = [re[j], re[i]];
      [im[i], im[j]] = [im[j], im[i]];
    }
  }
  for (let length = 2; length <= n; length *= 2) {
    const half = length / 2;
    for (let k = 0; k < half; k++) {
      const angle = (sign * 2 * Math.PI * k) / length;
      const c = Math.cos(angle), s = Math.sin(angle);
      for (let i = k, j = k + half; i < n; i += length, j += length) {
        const x = re[j] * c - im[j] * s, y = re[j] * s + im[j] * c;
        re[j] = re[i] - x; im[j] = im[i] - y;
        re[i] += x; im[i] += y;
      }
    }
  }
}

// Returns the magnitudes of one frame's spectrum from the log-mel values of its bands.
function magnitudes(mel, values) {
  const bins = mel.size / 2 + 1;
  const spread = (bands) => {
    const found = new Float64Array(bins);
    mel.filters.forEach(({ first, weights }, b) =>
      weights.forEach((weight, i) => (found[first + i] += weight * bands[b])));
    return found;
  };
  const gather = (spectrum) => mel.filters.map(({ first, weights }) =>
    weights.reduce((sum, weight, i) => sum + weight * spectrum[first + i], 0));
  const bands = Array.from(values, (value) =>
    Math.exp(value) > mel.floor * (1 + 1e-6) ? Math.exp(value) : 0.5 * mel.floor);
  const wanted = spread(bands);
  let found = wanted.map((value) => value / mel.largest);
  for (let n = 0; n < 100; n++) {
    const reached = spread(gather(found));
    found = found.map((value, i) => (value * wanted[i]) / (reached[i] + 1e-10));
  }
  return found;
}

// Returns the samples of the sound, given log-mel values of [frames, bands], flat, and the first
// phases in radians of [frames + 1, bins], flat.
function melSound(mel, values, phases, iterations = 64, momentum = 0.99) {
  const { size, hop, bands } = mel, bins = size / 2 + 1, count = values.length / bands + 1;
  const magnitude = new Float64Array(count * bins); // the last frame is silent
  for (let f = 0; f + 1 < count; f++) {
    magnitude.set(magnitudes(mel, values.slice(f * bands, (f + 1) * bands)), f * bins);
  }
  const window = Float64Array.from({ length: size }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / size));
  const length = (count - 1) * hop + size;
  const squares = new Float64Array(length);
  for (let f = 0; f < count; f++) window.forEach((w, i) => (squares[f * hop + i] += w * w));
  const re = new Float64Array(size), im = new Float64Array(size);

  // The inverse of the short-time Fourier transform, with zeros before and after the sound.
  function inverse(real, imaginary) {
    const total = new Float64Array(length);
    for (let f = 0; f < count; f++) {
      for (let k = 0; k < bins; k++) {
        const inside = k > 0 && k < bins - 1;
        re[k] = real[f * bins + k];
        im[k] = inside ? imaginary[f * bins + k] : 0;
        if (inside) { re[size - k] = re[k]; im[size - k] = -im[k]; }
      }
      fft(re, im, 1);
      for (let i = 0; i < size; i++) total[f * hop + i] += (re[i] * window[i]) / size;
    }
    return total.map((value, i) =>
      i < size / 2 || i >= length - size / 2 ? 0 : value / squares[i]);
  }

  let real = magnitude.map((value, i) => value * Math.cos(phases[i]));
  let imaginary = magnitude.map((value, i) => value * Math.sin(phases[i]));
  const before = { real: new Float64Array(count * bins), imaginary: new Float64Array(count * bins) };
  const share = momentum / (1 + momentum);
  for (let n = 0; n < iterations; n++) {
    const sound = inverse(real, imaginary);
    for (let f = 0; f < count; f++) {
      for (let i = 0; i < size; i++) { re[i] = sound[f * hop + i] * window[i]; im[i] = 0; }
      fft(re, im, -1);
      for (let k = 0, at = f * bins; k < bins; k++, at++) {
        const x = re[k] - share * before.real[at], y = im[k] - share * before.imaginary[at];
        const norm = Math.hypot(x, y) || 1;
        before.real[at] = re[k]; before.imaginary[at] = im[k];
        real[at] = (magnitude[at] * x) / norm;
        imaginary[at] = (magnitude[at] * y) / norm;
      }
    }
  }
  return inverse(real, imaginary).slice(size / 2, length - size / 2);
}
