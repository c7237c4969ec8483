"""Files that are written completely or not at all, and read without trusting them.

No file runs code, makes the reader wait, or takes memory that its size does not explain. `reading`
opens regular files, `json_file` and `npz` read the two formats of aejax' own files, `json_fields`
holds the checks of their fields, `names` checks names that become parts of a path, `writing`
replaces files atomically, and `policy` keeps browsers from running what a page does not name.
"""

from aejax.files.archives import members
from aejax.files.json_file import as_json, parse_json, read_json, write_json
from aejax.files.names import check_name
from aejax.files.npz import read_npy, read_npz
from aejax.files.policy import with_policy
from aejax.files.reading import (
    MALFORMED,
    check_regular,
    file_sha256,
    lines,
    open_file,
    read_bytes,
    reading,
    reason,
)
from aejax.files.writing import (
    lock_folder,
    remove_leftovers,
    replacing,
    subfolder,
    sync,
    unlock,
    write_bytes,
    writing,
)

__all__ = [
    "MALFORMED",
    "as_json",
    "check_name",
    "check_regular",
    "file_sha256",
    "lines",
    "lock_folder",
    "members",
    "open_file",
    "parse_json",
    "read_bytes",
    "read_json",
    "read_npy",
    "read_npz",
    "reading",
    "reason",
    "remove_leftovers",
    "replacing",
    "subfolder",
    "sync",
    "unlock",
    "with_policy",
    "write_bytes",
    "write_json",
    "writing",
]
