#!/usr/bin/env python3
"""Makes the videos of this folder with ffmpeg: tests/media/make.py [FOLDER]. The files are committed; run it to add one.

A frame is 64 x 48 pixels and says which one it is: eight blocks of 16 x 16 hold its number's bits (white is 1; the first
block is the highest bit), below them stand a red, a green, a blue and a grey block.
"""

import os
import subprocess
import sys

WIDTH, HEIGHT, BLOCK = 64, 48, 16
COLOURS = [(200, 30, 30), (30, 160, 30), (30, 30, 200), (128, 128, 128)]


def frame(number):
    rows = []
    for row in range(HEIGHT // BLOCK):
        line = b""
        for column in range(WIDTH // BLOCK):
            if row == 2:
                colour = COLOURS[column]
            else:
                bit = 7 - (row * 4 + column)
                colour = (235,) * 3 if number >> bit & 1 else (20,) * 3
            line += bytes(colour) * BLOCK
        rows.append(line * BLOCK)
    return b"".join(rows)


def make(folder, name, frames, *options, rate=25, before=()):
    raw = b"".join(frame(n) for n in range(frames))
    path = os.path.join(folder, name)
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s",
               f"{WIDTH}x{HEIGHT}", "-r", str(rate), "-i", "-", *before, "-fflags", "+bitexact", "-flags:v", "+bitexact",
               "-threads", "1", *options, path]
    subprocess.run(command, input=raw, check=True)
    print(f"{name}: {os.path.getsize(path)} bytes")


def turn(folder, source, name, angle):
    """The same packets with a display matrix; an angle of 90 shows them turned to the left."""
    subprocess.run(["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-i", os.path.join(folder, source), "-c", "copy",
                    "-fflags", "+bitexact", "-metadata:s:v:0", f"rotate={angle}", os.path.join(folder, name)], check=True)


def main():
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
    x264 = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20"]
    to_bt709 = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-colorspace", "bt709", "-color_range", "tv"]
    to_full = ["-vf", "scale=out_color_matrix=bt601:out_range=pc", "-colorspace", "smpte170m", "-color_range", "pc"]
    tone = ["-f", "lavfi", "-i", "sine=frequency=440:duration=4", "-c:a", "aac", "-b:a", "32k", "-shortest"]
    make(folder, "h264.mp4", 100, *x264, "-g", "30", "-bf", "3")
    make(folder, "h264_audio.mp4", 50, *tone[4:], *x264, before=tone[:4])
    make(folder, "h264_bt709.mp4", 10, *to_bt709, *x264)
    make(folder, "h264_full_range.mp4", 10, *to_full, *x264)
    make(folder, "h264_open_gop.mkv", 100, *x264, "-x264-params", "keyint=12:min-keyint=12:open-gop=1:bframes=3:scenecut=0")
    make(folder, "h264_fragmented.mp4", 60, *x264, "-g", "20", "-movflags", "frag_keyframe+empty_moov")
    for angle in (90, 180, 270):
        turn(folder, "h264_bt709.mp4", f"h264_rotate{angle}.mov", angle)
    # Frames 0 to 29 last 40 ms, 30 to 59 last 200 ms.
    make(folder, "h264_variable_rate.mp4", 60, "-vf", "setpts='if(lt(N,30),N*0.04,1.2+(N-30)*0.2)/TB'", "-vsync", "vfr",
         *x264, "-video_track_timescale", "1000")
    make(folder, "hevc_10bit.mkv", 40, "-c:v", "libx265", "-pix_fmt", "yuv420p10le", "-crf", "20", "-x265-params",
         "log-level=error:keyint=16:bframes=3:info=0")
    make(folder, "hevc.mp4", 40, "-c:v", "libx265", "-pix_fmt", "yuv420p", "-crf", "20", "-tag:v", "hvc1", "-x265-params",
         "log-level=error:keyint=16:bframes=3:info=0")
    make(folder, "vp8.webm", 60, "-c:v", "libvpx", "-b:v", "200k", "-auto-alt-ref", "1", "-lag-in-frames", "16", "-g", "30")
    make(folder, "vp9.webm", 60, "-c:v", "libvpx-vp9", "-crf", "24", "-b:v", "0", "-g", "30", rate=30)
    make(folder, "av1.webm", 30, "-c:v", "libaom-av1", "-crf", "24", "-cpu-used", "8", "-g", "15")
    make(folder, "mpeg4.avi", 60, "-c:v", "mpeg4", "-q:v", "3", "-bf", "2", "-g", "20")
    make(folder, "mjpeg.avi", 20, "-c:v", "mjpeg", "-q:v", "3", "-pix_fmt", "yuvj420p")
    make(folder, "animated.gif", 30, "-c:v", "gif", rate=10)
    make(folder, "still.gif", 1, "-c:v", "gif", rate=10)
    make(folder, "animated.webp", 30, "-c:v", "libwebp_anim", "-lossless", "1", rate=10)
    make(folder, "still.webp", 1, "-c:v", "libwebp", "-lossless", "1", rate=10)
    make(folder, "jpeg2000.mov", 3, "-c:v", "jpeg2000")
    make(folder, "prores.mov", 3, "-c:v", "prores")


if __name__ == "__main__":
    main()
