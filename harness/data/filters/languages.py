"""Which language a text is in: py3langid, a naive Bayes model over byte n-grams that ships with its weights."""

from functools import lru_cache
from typing import Any

from harness.errors import MissingDependency

LANGUAGES = {
    "ar": "Arabic",
    "bg": "Bulgarian",
    "bn": "Bengali",
    "ca": "Catalan",
    "cs": "Czech",
    "da": "Danish",
    "de": "German",
    "el": "Greek",
    "en": "English",
    "es": "Spanish",
    "et": "Estonian",
    "fa": "Persian",
    "fi": "Finnish",
    "fr": "French",
    "he": "Hebrew",
    "hi": "Hindi",
    "hr": "Croatian",
    "hu": "Hungarian",
    "id": "Indonesian",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "lt": "Lithuanian",
    "lv": "Latvian",
    "nl": "Dutch",
    "no": "Norwegian",
    "pl": "Polish",
    "pt": "Portuguese",
    "ro": "Romanian",
    "ru": "Russian",
    "sk": "Slovak",
    "sl": "Slovenian",
    "sv": "Swedish",
    "th": "Thai",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "ur": "Urdu",
    "vi": "Vietnamese",
    "zh": "Chinese",
}
_ENOUGH = 400  # characters that settle the language; the time grows with the text


def foreign_language(text: str, expected: str, confidence: float) -> str | None:
    """The likeliest language when the text is not in the expected one with at least `confidence`, else None."""
    identifier = _identifier()
    language: str = identifier.classify(text[:_ENOUGH])[0]
    if language == expected:
        return None
    return language if dict(identifier.rank(text[:_ENOUGH]))[expected] <= 1 - confidence else None


@lru_cache(maxsize=1)
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError as error:
        raise MissingDependency(str(error.name), "the language rule of the quality filter", "data") from None
    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    identifier.set_languages(list(LANGUAGES))
    return identifier
