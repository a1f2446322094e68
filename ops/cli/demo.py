"""`forebay demo`: the whole appliance at work with simulated devices, and proof that nothing acknowledged is lost."""

from __future__ import annotations

from pathlib import Path

import click

from ops.cli.reached import INTERRUPTED, Failed, reported


@click.command()
@click.option("--duration", type=click.FloatRange(0), default=30.0, help="Seconds; 0: until Ctrl-C.  [default: 30]")
@click.option("--devices", type=click.IntRange(1, 20_000), default=50, help="How many.  [default: 50]")
@click.option("--rate", type=click.FloatRange(0.01, 1000), default=20.0, help="Messages/s of each.  [default: 20]")
@click.option("--brokers", type=click.IntRange(1, 64), default=3, help="Broker processes.  [default: 3]")
@click.option(
    "-r", "--replicas", type=click.IntRange(1), help="Copies of each partition.  [default: 3, or one a broker if fewer]"
)
@click.option("--chaos", is_flag=True, help="Kill leaders, followers, controllers and gateways with SIGKILL meanwhile.")
@click.option(
    "--data-dir",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="A new directory to keep; without it a temporary one is used and removed.",
)
@click.option(
    "--seed", type=click.IntRange(0), default=0, help="Repeat the dice of a run.  [default: others each time]"
)
def demo(
    duration: float,
    devices: int,
    rate: float,
    brokers: int,
    replicas: int | None,
    chaos: bool,
    data_dir: Path | None,
    seed: int,
) -> None:
    """Start an appliance of its own, let devices publish over MQTT, read everything back, and hold it against the
    PUBACKs. It ends with a summary; everything it started is ended.

    \b
      forebay demo --chaos
      forebay demo --duration 20 --devices 50        in scripts
    \b
    Exit codes: 0 everything acknowledged was read back, 1 not so, 130 interrupted.
    """
    try:
        from ops.demo.run import DemoOptions, run_demo

        options = DemoOptions(
            duration_s=duration,
            devices=devices,
            rate=rate,
            brokers=brokers,
            replicas=replicas or 0,
            chaos=chaos,
            data_dir=data_dir,
            seed=seed,
        )
        with reported():
            code = run_demo(options)
    except KeyboardInterrupt:
        raise Failed("interrupted; everything the demo started has been ended", INTERRUPTED) from None
    raise SystemExit(code)
