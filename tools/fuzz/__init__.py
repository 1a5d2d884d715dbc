"""A fuzzer for every decoder of this project: good files, changed at random, must end in a value or a documented error."""
