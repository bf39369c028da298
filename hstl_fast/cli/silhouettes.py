"""`hstl-fast silhouettes`: the people of a video, as silhouette sequences."""

from pathlib import Path

import click

from hstl_fast.cli.output import print_table, progress_bar
from hstl_fast.data.found import counted
from hstl_fast.silhouettes import SavedTrack, video_to_silhouettes


@click.command(short_help="Cut walking people out of a video.")
@click.argument("video", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, metavar="DIR", type=click.Path(path_type=Path), help="Folder to write.")
@click.option("--min-frames", type=click.IntRange(min=1), default=30, show_default=True, help="Shortest track to keep.")
@click.option(
    "--min-height",
    type=click.IntRange(min=16),
    default=48,
    show_default=True,
    help="Lowest person to keep, in pixels of the video.",
)
@click.option(
    "--fps",
    type=float,
    help="Frames a second of the tracks, at most the video's: those nearest in time are taken.  [default: all]",
)
@click.option(
    "--segmenter",
    default="background",
    show_default=True,
    metavar="NAME",
    help="What finds people: background (the camera stands still), or onnx:MODEL.onnx, a segmentation model, with "
    "which the camera may move; a model's options follow a question mark: 'onnx:MODEL.onnx?mean=0.5&std=0.5'.",
)
@click.option("--overwrite", is_flag=True, help="Replace an earlier output of this command.")
def silhouettes(
    video: Path, output: Path, min_frames: int, min_height: int, fps: float | None, segmenter: str, overwrite: bool
) -> None:
    """Cut walking people out of VIDEO.

    Writes a sequence of aligned 64 x 64 silhouettes per person, a contact sheet (look at it) and tracks.json;
    `hstl-fast embed DIR` reads the folder.
    """
    with progress_bar() as advance:
        summary = video_to_silhouettes(
            video,
            output,
            min_frames=min_frames,
            min_height=min_height,
            fps=fps,
            segmenter=segmenter,
            overwrite=overwrite,
            progress=advance,
        )
    rows = [
        [t.name, str(t.num_frames), f"{t.first_frame}-{t.last_frame}", _seconds(t, summary.fps)] for t in summary.tracks
    ]
    print_table(["track", "frames", "of the video", "seconds"], rows)
    left_out = summary.stages.get("left_out", {})
    if left_out:
        click.echo(f"left out (one for each frame): {', '.join(f'{n} {why}' for why, n in left_out.items())}")
    click.echo(
        f"{summary.out_dir}: {counted(len(summary.tracks), 'track', 'tracks')} from {summary.num_frames} frames; "
        f"see {summary.contact_sheet}"
    )


def _seconds(track: SavedTrack, fps: float | None) -> str:
    return f"{track.first_frame / fps:.1f}-{track.last_frame / fps:.1f}" if fps else "unknown"
