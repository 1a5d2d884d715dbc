"""Command `mdm-certs`: a private CA for tests, from the command line. One file a command; heavy imports inside them."""

import typer

from certs.cli import init, inspect, issue, operator, serve

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    help="A private CA for testing MDM servers: keys, certificates, SCEP and ACME.",
)
app.command("init")(init.init)
app.command("issue")(issue.issue)
app.command("serve")(serve.serve)
app.command("requests")(operator.requests)
app.command("approve")(operator.approve)
app.command("deny")(operator.deny)
app.command("inspect")(inspect.inspect)


def main() -> None:
    """Entry point of the console script."""
    app()
