"""The commands, by the work that they belong to; importing this adds them all to the app."""

from tlsearch.cli.commands import (
    cache,
    check,
    cluster,
    combinations,
    compare,
    control,
    models,
    production,
    results,
    run,
    space_files,
    stored_searches,
)
