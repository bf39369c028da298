"""`hstl-fast silhouettes`: the people of a video, as silhouette sequences."""

from pathlib import Path

import click

from hstl_fast.cli.output import print_table, progress_bar
from hstl_fast.silhouettes import video_to_silhouettes


@click.command(short_help="Cut walking people out of a video.")
@click.argument("video", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--min-frames", type=click.IntRange(min=1), default=30, show_default=True, help="Shortest track to keep.")
@click.option("--overwrite", is_flag=True, help="Replace an earlier output of this command.")
def silhouettes(video: Path, output: Path, min_frames: int, overwrite: bool) -> None:
    """Cut walking people out of VIDEO from a camera that stands still.

    Writes a sequence of aligned 64 x 64 silhouettes per person, a contact sheet (look at it) and tracks.json;
    `hstl-fast embed DIR` reads the folder.
    """
    with progress_bar() as advance:
        summary = video_to_silhouettes(video, output, min_frames=min_frames, overwrite=overwrite, progress=advance)
    rows = [[t.name, str(t.num_frames), f"{t.first_frame}-{t.last_frame}"] for t in summary.tracks]
    print_table(["track", "frames", "of the video"], rows)
    click.echo(
        f"{summary.out_dir}: {len(summary.tracks)} tracks from {summary.num_frames} frames; see {summary.contact_sheet}"
    )
