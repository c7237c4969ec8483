"""What several experiments share: their course, their folders, their numbers and their parts."""
