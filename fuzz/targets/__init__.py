"""The targets, by name; each module's header says what its inputs are."""

from __future__ import annotations

from fuzz.target import Target
from fuzz.targets import catalog, files, language, logs, pages, records, segments, values

TARGETS: dict[str, Target] = {
    target.name: target
    for module in (pages, records, catalog, logs, segments, values, language, files)
    for target in module.TARGETS
}
