"""Stop words: those of a language, or those that an option lists.

English's are Snowball's list, as far as its words are whole tokens here, and the ends that an
apostrophe leaves (don't, we'll). Other languages' come from the package stop-words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from m2mdb.pager.errors import NotSupportedError, ProgrammingError

if TYPE_CHECKING:
    from collections.abc import Sequence

ENGLISH = (
    "i me my myself we us our ours ourselves you your yours yourself yourselves he him his himself "
    "she her hers herself it its itself they them their theirs themselves what which who whom "
    "this that these those am is are was were be been being have has had having do does did doing "
    "would should could ought will shall can cannot may might must a an the and but if or because "
    "as until while of at by for with about against between into through during before after "
    "above below to from up down in out on off over under again further then once here there when "
    "where why how all any both each few more most other some such no nor not only own same so "
    "than too very s t d m ll re ve don doesn didn isn aren wasn weren hasn haven hadn won wouldn "
    "shouldn couldn mustn"
)  # fmt: skip


def stop_words(option: str) -> Sequence[str]:
    """The words of `stop = 'english'`, or of a list: `stop = 'the, a, of'`.

    Raises ProgrammingError for a language that is not known, NotSupportedError without the package
    that knows it.
    """
    name = option.strip()
    if "," in name or " " in name:
        return name.replace(",", " ").split()
    if name.lower() in ("english", "en"):
        return ENGLISH.split()
    try:
        import stop_words as package
    except ImportError as error:
        raise NotSupportedError(
            f"FULLTEXT option stop = {option!r} needs stop-words (pip install 'm2mdb[text]')"
        ) from error
    languages = sorted(package.LANGUAGE_MAPPING.values())
    if name.lower() not in languages:
        raise ProgrammingError(
            f"FULLTEXT option stop = {option!r}: expected one of english, "
            f"{', '.join(languages)}, or several words"
        )
    found: Sequence[str] = package.get_stop_words(name.lower())
    return found
