"""The data report at the start of every run: printed, kept in data.json, and a reason to refuse."""

from prefloop.data.doctor import DataReport
from prefloop.engine.progress import say
from prefloop.engine.run import Run
from prefloop.models.encode import Encoder


def report_data(run: Run, name: str, report: DataReport, *, encoder: Encoder | None = None, max_dropped: float = 0.05) -> None:
    """Tell what happened to every row of a data set; DataError (exit 2) when more than ``max_dropped`` of it is lost or cut.

    With an encoder that has seen the records, prompts too long for it and answers it had to cut are counted in.
    """
    if encoder is not None:
        report = report.after_encoding(
            truncated_answers=encoder.counts["completions_cut"],
            prompts_too_long=encoder.counts["prompts_too_long"],
            answers=encoder.counts["completions"],
            prompts=encoder.counts["prompts"],
        )
    run.data[name] = report.as_dict() | {"lines": report.lines()}
    run.write_json("data.json", run.data)
    for line in report.lines():
        say(line)
    report.refuse_if_too_many_dropped(max_dropped)
