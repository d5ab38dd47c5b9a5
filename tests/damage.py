"""Damages files: a bit at a time."""


def each_flipped(path, samples):
    """Writes the file with another bit flipped each time, then as it was.

    Yields:
        The bit's number: so many samples from the first to the last, or all if there are fewer.
    """
    whole = path.read_bytes()
    last = 8 * len(whole) - 1
    for position in sorted({round(i * last / (samples - 1)) for i in range(samples)}):
        damaged = bytearray(whole)
        damaged[position // 8] ^= 1 << position % 8
        path.write_bytes(damaged)
        yield position
    path.write_bytes(whole)
