"""How much of a text says again what it said before."""


def repeated_share(text: str, least_words: int, n: int = 4) -> float:
    """The share of word n-grams that occurred before in the text (as in Rae et al. 2021, Gopher, table A1).

    0 for texts of fewer than `least_words` words.
    """
    words = text.lower().split()
    if len(words) < max(least_words, n + 1):
        return 0.0
    grams = [" ".join(words[i : i + n]) for i in range(len(words) - n + 1)]
    return 1 - len(set(grams)) / len(grams)
