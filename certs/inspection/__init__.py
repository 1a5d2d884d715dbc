"""What a file holds, in words, and what is wrong with it: the reader behind `mdm-certs inspect`."""
