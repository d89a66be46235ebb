"""The page that compares folders of studies: one study, or all of them study by study."""

from collections.abc import Sequence
from pathlib import Path

from closerlook import files
from closerlook.errors import StoreError, UsageError
from closerlook.report import Collection, Section, write, write_collection
from closerlook.studies import STUDIES
from closerlook.studies.comparison import command_of, compared
from closerlook.studies.together import ALL


def side_by_side(folders: Sequence[Path], path: Path) -> Path:
    """Write the page that compares studies' folders, each of one study or of all; study by study where they share more.

    Raises
    ------
    UsageError
        The folders share no study, or the one that they share was judged by different rules.
    """
    found = [studies_of(folder) for folder in folders]
    given = {name for of in found for name in of}
    names = [name for name in STUDIES if name in given]  # in the order of the paper
    shared = [name for name in names if all(name in of for of in found)]
    if not shared:
        told = "; ".join(f"{folder}: {', '.join(of)}" for folder, of in zip(folders, found, strict=True))
        raise UsageError(f"studies that ask different questions are not compared ({told}); name folders of one study")
    if len(shared) == 1:
        return write(compared([of[shared[0]] for of in found]), path)
    missing = {name: "not in every folder" for name in names if name not in shared}
    missing |= {name: "not a study of this version" for name in sorted(given - set(STUDIES))}
    sections = []
    for name in shared:
        try:
            sections.append(Section(name, compared([of[name] for of in found])))
        except UsageError as error:
            missing[name] = str(error)
    page = Collection(
        title=f"All studies: {len(folders)} reports side by side",
        question="Which verdicts hold across data, networks and machines?",
        sections=tuple(sections), missing=tuple(missing.items()), command=command_of(folders),
    )  # fmt: skip
    return write_collection(page, path)


def studies_of(folder: Path) -> dict[str, Path]:
    """The folders of the studies that a folder stands for, by name: its own, or those beside it where it is of all.

    Raises
    ------
    StoreError
        Its plan is damaged.
    """
    plan = files.read_json(folder / "plan.json")
    try:
        if plan["study"] == ALL:
            return {name: folder.parent / beside for name, beside in plan["studies"].items()}
        return {plan["study"]: folder}
    except (KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{folder / 'plan.json'} is damaged; closerlook study makes it anew") from error
