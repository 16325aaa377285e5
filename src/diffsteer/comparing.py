"""The story of one `diffsteer compare`: runs in one table and one figure, what must be known to read them, and what to do next."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsteer import curves
from diffsteer.comparable import BEST, LAST, SIGNIFICANT, TIED, Column, difference, exact, loss_columns, score_columns
from diffsteer.config import RESUME_MAY_CHANGE, TrainSettings, reading_flags
from diffsteer.data.whole import whole_file
from diffsteer.errors import Mistake
from diffsteer.evaluation.report import table
from diffsteer.record import Record, Trained, read_record

OVER_TIME = ("accuracy", "frechet")  # measures that the figure shows over the minutes of training
MOST_SETTINGS = 6  # more that differ get a table of their own, and are no part of the legend
WIDTH = 130  # letters of a line; a wider table goes on below, as its names again and its further columns

Row = Mapping[str, object]


@dataclass(frozen=True)
class Comparison:
    """Runs by name. settings: of each, those that differ between the runs."""

    records: Mapping[str, Record]
    settings: Mapping[str, Mapping[str, Any]]
    columns: Sequence[Column]

    def rows(self) -> list[Row]:
        """The rows of the table: a run each, and what real pictures score."""
        rows: list[Row] = []
        measures = {column.title for column in self.columns}
        for run, record in self.records.items():
            told = {} if self.many else _in_words(self.settings[run])
            settings = {f"--{key}" if key in measures else key: word for key, word in told.items()}  # --precision, and precision
            values = {column.title: column.cell(run) for column in self.columns}
            rows.append({"run": run, **settings, **_length(record.trained), **values})
        floors = {column.title: column.text(column.floor) for column in self.columns if column.floor}
        return [*rows, {"run": "real pictures", **floors}] if floors else rows

    @property
    def many(self) -> bool:
        """Whether so many settings differ that they have a table of their own."""
        return max(map(len, self.settings.values())) > MOST_SETTINGS

    def settings_rows(self) -> list[Row]:
        """The rows of that table: a setting each, a column a run."""
        words = {run: _in_words(settings) for run, settings in self.settings.items()}
        keys = dict.fromkeys(key for settings in words.values() for key in settings)
        return [{"setting": key, **{run: each.get(key) for run, each in words.items()}} for key in keys]

    def notes(self) -> list[str]:
        """What must be known to read the table, a sentence each."""
        return [*_apart(self.columns), *_lengths(self.records), *_drawn(self.columns), *_verdicts(self.columns)]

    def lines(self) -> list[str]:
        """For people: the table, its columns aligned, and the notes."""
        settings = [*_aligned(self.settings_rows()), ""] if self.many else []
        return [*settings, *_aligned(self.rows()), "", *self.notes()]

    def markdown(self) -> str:
        """A page: the table, the notes, the figure where there is one."""
        parts = ["# Comparison", table(self.rows()), "\n".join(f"- {note}" for note in self.notes())]
        parts += ["![The runs over the minutes of training](compare.png)"] if self.panels() else []
        parts += ["## Settings that differ", table(self.settings_rows())] if self.many else []
        return "\n\n".join(parts) + "\n"

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "runs": [_run_dict(run, record, self.settings[run]) for run, record in self.records.items()],
            "columns": {column.title: _column_dict(column) for column in self.columns},
            "notes": self.notes(),
        }

    def panels(self) -> list[curves.Panel]:
        """Scores over the minutes of training, and the losses of runs some of which were not scored in training."""
        panels, shown = [], set[str]()
        for column in self.columns:
            lines = {run: _over_time(record, column) for run, record in self.records.items()} if column.kind in OVER_TIME else {}
            if any(lines.values()):
                floor = None if column.floor is None else column.floor.value
                panels.append(curves.Panel(column.title, lines, list(column.group.apart), column.measure.share, floor))
                shown |= {run for run, points in lines.items() if points}
        for column in self.columns:
            if column.kind == "loss" and not shown.issuperset(column.numbers):
                members: Mapping[str, Trained] = column.group.members
                lines = {run: list(map(curves.Point, trained.minutes, trained.losses)) for run, trained in members.items()}
                panels.append(curves.Panel(column.title, lines, list(column.group.apart), each_step=True))
        return panels

    def next_command(self) -> str:
        """Scores for a run that has none beside the others', else pictures of the best run."""
        judged = next((column for column in self.columns if column.kind == "frechet"), None)
        for run, record in self.records.items():
            if judged is None or (run not in judged.numbers and _could_join(record, judged)):
                return _evaluate(record, judged, self.records)
        best = next(
            (column.best for column in reversed(self.columns) if column.kind in OVER_TIME and column.best), next(iter(self.records))
        )
        return f"diffsteer sample {shlex.quote(str(self.records[best].path))} --out {shlex.quote(Path(best).name)}.png"


def compare(folders: Sequence[Path]) -> Comparison:
    """Reads run folders, and model folders with scores. Raises Mistake."""
    if len(folders) < 2:
        given = f"{folders[0]} alone was given" if folders else "none was given"
        raise Mistake(f"A comparison takes two runs or more, and {given}: diffsteer compare runs/a runs/b.")
    records = dict(zip(_names(folders), map(read_record, folders), strict=True))
    trained = {run: record.trained for run, record in records.items() if record.trained and record.trained.steps}
    scorings = [(run, scoring) for run, record in records.items() for scoring in record.latest()]
    return Comparison(records, _differing(records), [*loss_columns(trained), *score_columns(scorings)])


def write_comparison(comparison: Comparison, out: Path) -> None:
    """Writes compare.md, compare.json and, where there is something to draw, compare.png into the folder `out`, each whole."""
    with whole_file(out / "compare.json") as beside:
        beside.write_text(json.dumps(comparison.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    with whole_file(out / "compare.md") as beside:
        beside.write_text(comparison.markdown(), encoding="utf-8")
    if panels := comparison.panels():
        labels = {run: run if comparison.many else _label(run, settings) for run, settings in comparison.settings.items()}
        curves.write_comparison(panels, labels, out / "compare.png")


# ---- names and settings ----------------------------------------------------------------------------------------------


def _names(folders: Sequence[Path]) -> list[str]:
    """A short name for each folder: its path below the folder that all share. Mistake for one given twice."""
    whole = [folder.expanduser().resolve() for folder in folders]
    for place, folder in enumerate(whole):
        if folder in whole[:place]:
            raise Mistake(f"{folders[place]} is given twice; give each run once.")
    shared = os.path.commonpath([folder.parent for folder in whole])
    return [folder.relative_to(shared).as_posix() for folder in whole]


def _differing(records: Mapping[str, Record]) -> dict[str, dict[str, Any]]:
    """Of each run the settings that are not the same in all, but for its length and for what touches no number."""
    known = {run: record.trained.settings for run, record in records.items() if record.trained}
    keys = [key for key in dict.fromkeys(key for settings in known.values() for key in settings) if key not in RESUME_MAY_CHANGE]
    differ = [key for key in keys if len({repr(settings.get(key)) for settings in known.values()}) > 1]
    return {run: {key: known[run].get(key) for key in differ} if run in known else {} for run in records}


def _in_words(settings: Mapping[str, Any]) -> dict[str, str]:
    return {key.replace("_", "-"): _word(key, value) for key, value in settings.items()}


def _word(key: str, value: Any) -> str:
    """A setting as the command line has it; None is `default` where that is what it is when nothing is said."""
    if value is None:
        field = TrainSettings.model_fields.get(key)
        return "default" if field is not None and field.get_default() is None else "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if key == "size":
        return "x".join(map(str, value))
    return ",".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _label(run: str, settings: Mapping[str, Any]) -> str:
    words = ", ".join(f"{key} {word}" for key, word in _in_words(settings).items())
    return f"{run}: {words}" if words else run


def _length(trained: Trained | None) -> dict[str, object]:
    """How long a run was, as cells. A model folder has dashes there."""
    cells: dict[str, object] = dict.fromkeys(("steps", "pictures seen", "minutes", "pictures/s"))
    if trained is not None and trained.steps:
        cells["steps"] = f"{trained.steps:,}" + ("" if trained.finished else f" of {trained.planned:,}")
        cells["pictures seen"] = trained.pictures
        cells["minutes"] = f"{trained.minutes[-1]:.1f}"
        cells["pictures/s"] = f"{trained.rate:,.0f}" if trained.rate >= 10 else f"{trained.rate:.2g}"
    return cells


# ---- notes -----------------------------------------------------------------------------------------------------------


def _apart(columns: Sequence[Column]) -> list[str]:
    """A sentence for all columns that stand apart from the first of their kind by the same."""
    together: dict[str, list[str]] = {}
    for column in columns:
        if column.group.apart:
            together.setdefault(", ".join(column.group.apart.values()), []).append(column.title)
    return [f"{_listed(titles)} cannot be compared with (A): {apart}." for apart, titles in together.items()]


def _lengths(records: Mapping[str, Record]) -> list[str]:
    runs = {run: record.trained for run, record in records.items() if record.trained}
    notes = [
        f"{run} is not finished: {each.steps:,} of {each.planned:,} steps are done." for run, each in runs.items() if not each.finished
    ]
    if len({each.pictures for each in runs.values()}) > 1:
        least, most = (end(runs, key=lambda run: runs[run].pictures) for end in (min, max))
        notes.append(f"Lengths differ: {least} has seen {runs[least].pictures:,} pictures, {most} {runs[most].pictures:,}.")
    for run, each in runs.items():
        looks = [(look, "scored in training") for look in records[run].scorings[-1:]]
        for last, how in (*looks, (records[run].evaluation, "evaluated")):
            if last is not None and last.step is not None and last.step < each.steps:
                notes.append(f"{run} was last {how} at step {last.step:,} of the {each.steps:,} done.")
    return notes


def _drawn(columns: Sequence[Column]) -> list[str]:
    """Runs of a column whose pictures were drawn otherwise than the first one's."""
    notes: dict[str, None] = {}
    for column in columns:
        if column.kind != "loss":
            (first, its), *others = column.group.members.items()
            apart = {run: difference(scoring.drawn, its.drawn) for run, scoring in others if scoring.drawn and its.drawn}
            notes |= {
                f"{run} drew its pictures otherwise than {first}: {', '.join(how.values())}.": None for run, how in apart.items() if how
            }
    return list(notes)


def _verdicts(columns: Sequence[Column]) -> list[str]:
    """What the marks mean, and which differences are within the error."""
    notes = [f"The best of a column, by more than {SIGNIFICANT} standard errors of the difference, is marked {BEST}."]
    tied = [column.title for column in columns if column.tied]
    notes += [f"{_listed(tied)}: no difference beyond the error between the runs marked {TIED}."] if tied else []
    errors = f"± is one standard error, over the pictures scored or the last {LAST} losses; another training seed may change more."
    return [*(notes if any(column.best for column in columns) else notes[1:]), errors]


def _listed(names: Sequence[str]) -> str:
    """At most four of them, in words."""
    shown = list(names) if len(names) <= 4 else [*names[:3], f"{len(names) - 3} more"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


# ---- what to do next -------------------------------------------------------------------------------------------------


def _could_join(record: Record, column: Column) -> bool:
    """Whether a run could be given a score in the column: not if it was set against other real pictures."""
    real = column.group.facts["real pictures"]
    return all(scoring.scores[column.kind].facts["real pictures"] == real for scoring in record.latest() if column.kind in scoring.scores)


def _evaluate(record: Record, like: Column | None, records: Mapping[str, Record]) -> str:
    """The command that scores a run, in the way of the column `like` as far as that is known."""
    read = [str(record.trained.settings["data"]), *reading_flags(record.trained.settings)] if record.trained else ["DATA"]
    words = ["diffsteer", "evaluate", str(record.path), *read]
    if like is not None:
        words += ["--count", str(like.group.facts["number of drawn pictures"].exact)]
        judge = records[next(iter(like.numbers))].path / "scores" / "judge"
        words += ["--judge", str(judge)] if judge.is_dir() else []
    return shlex.join([*words, "--out", f"{record.path}/scores"])


# ---- as text, JSON and curves ----------------------------------------------------------------------------------------


def _aligned(rows: Sequence[Row]) -> list[str]:
    """A table in plain text: the first column left, the others right; folded where it is too wide."""
    titles = list(dict.fromkeys(key for row in rows for key in row))
    columns = [[title, *(_cell(row.get(title)) for row in rows)] for title in titles]
    first, *others = [[cell.rjust(max(map(len, column))) for cell in column] for column in columns]
    first = [cell.strip().ljust(len(cell)) for cell in first]
    folds, wide = [[first]], len(first[0])
    for column in others:
        wide += 2 + len(column[0])
        if wide > WIDTH and len(folds[-1]) > 1:
            folds.append([first])
            wide = len(first[0]) + 2 + len(column[0])
        folds[-1].append(column)
    blocks = [["  ".join(line).rstrip() for line in zip(*fold, strict=True)] for fold in folds]
    return [line for place, block in enumerate(blocks) for line in ([""] if place else []) + block]


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _run_dict(run: str, record: Record, settings: Mapping[str, Any]) -> dict[str, Any]:
    trained = record.trained
    length = trained and {
        "steps": trained.steps,
        "planned_steps": trained.planned,
        "finished": trained.finished,
        "pictures": trained.pictures,
        "minutes": trained.minutes[-1] if trained.steps else 0.0,
        "pictures_per_second": trained.rate if trained.steps else None,
    }
    return {"run": run, "path": str(record.path), "settings": dict(settings), "training": length}


def _column_dict(column: Column) -> dict[str, Any]:
    return {
        "rests_on": {name: fact.words for name, fact in column.group.facts.items()},
        "values": {run: {"value": number.value, "error": number.error} for run, number in column.numbers.items()},
        "floor": column.floor and {"value": column.floor.value, "error": column.floor.error},
        "best": column.best,
        "within_the_error": column.leaders if column.tied else [],
    }


def _over_time(record: Record, column: Column) -> list[curves.Point]:
    """The column's measure over the training of a run, of those scores that may be compared with the column's."""
    points = []
    for scoring in record.scorings:
        score = scoring.scores.get(column.kind)
        if score is not None and scoring.minutes is not None and exact(score.facts) == exact(column.group.facts):
            points.append(curves.Point(scoring.minutes, score.number.value, score.number.error or 0.0))
    return points
