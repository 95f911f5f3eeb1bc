"""`copydet doctor`: what is installed, what works, and what to do about the rest."""

from dataclasses import asdict

import click

from copydet.cli.console import count, print_json, say, say_next
from copydet.cli.options import json_option


@click.command("doctor")
@json_option
def command(as_json: bool) -> int:
    """Check what is installed and which devices work.

    Devices are tried, not listed: a kernel runs on every GPU, and a picture is described. What to do stands beside each
    problem; exits with 4 when there is one.

    \b
    Example:
      copydet doctor
    """
    from copydet.cli.checks import Finding, look_around

    problems: list[str] = []
    findings: list[Finding] = []
    area = ""
    for finding in look_around():
        findings.append(finding)
        if finding.problem:
            problems.append(finding.problem)
        if as_json:
            continue
        if finding.area != area:
            area = finding.area
            click.echo(area)
        click.echo(f"  {finding.name:<24} {finding.value}".rstrip())
        if finding.problem:
            click.echo(f"  {'':<24} PROBLEM: {finding.problem}")
    if as_json:
        print_json({"problems": problems, "findings": [asdict(finding) for finding in findings]})
        return 4 if problems else 0
    if problems:
        say(f"{count(len(problems), 'problem')} found; what to do stands beside each.")
        return 4
    say("No problems found.")
    say_next("copydet index PHOTOS --index photos.index")
    return 0
