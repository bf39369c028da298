"""`hstl-fast info`: what is installed, what can run, and whether it computes the right thing."""

import json
from typing import Any

import click

import hstl_fast.info
from hstl_fast.cli.output import print_table


@click.command(short_help="Show what is installed and what can run.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--check", is_flag=True, help="Compare every backend with the float64 reference.")
def info(as_json: bool, check: bool) -> None:
    """Show versions, the native code and which backend computes what, with the reason where one cannot run."""
    facts = hstl_fast.info.collect()
    results = hstl_fast.info.check() if check else []
    if as_json:
        if check:
            facts["check"] = [{**result._asdict(), "passed": result.passed} for result in results]
        click.echo(json.dumps(facts, indent=2))
    else:
        _print_facts(facts)
        _print_backends(facts["backends"])
        _print_check(results)
    if facts["wrong_variables"]:
        raise click.ClickException("; ".join(facts["wrong_variables"]))
    if not all(result.passed for result in results):
        raise click.ClickException("a backend disagrees with the reference")


def _print_facts(facts: dict[str, Any]) -> None:
    rows = []
    for name, value in facts.items():
        if name == "caches":
            rows += [[f"{name}.{key}", f"{size} bytes"] for key, size in value.items()]
        elif isinstance(value, dict):
            rows += [[f"{name}.{key}", _text(entry)] for key, entry in value.items()]
        elif name != "backends":
            rows.append([name, _text(value)])
    print_table(["", ""], rows)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return str(value)


def _print_backends(backends: list[dict[str, Any]]) -> None:
    rows = []
    for entry in backends:
        state = entry["reason"] or ("runs" if entry["verified"] else "runs, but has never been tried on a GPU")
        chosen = "auto" if entry["automatic"] else ""
        rows.append([entry["operator"], entry["device"], entry["backend"], chosen, state])
    click.echo()
    print_table(["operator", "device", "backend", "", "state"], rows)


def _verdict(passed: bool) -> str:
    return "ok" if passed else "FAILED"


def _print_check(results: list[hstl_fast.info.Check]) -> None:
    if not results:
        return
    rows = [
        [
            r.operator,
            r.device,
            r.backend,
            r.dtype,
            f"{r.error:.1e}",
            f"{r.tolerance:.0e}",
            _verdict(r.passed),
        ]
        for r in results
    ]
    click.echo()
    print_table(["check", "device", "backend", "type", "error", "at most", ""], rows)
