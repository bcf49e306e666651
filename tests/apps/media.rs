//! Encoders, which come back to the head of their file: ffmpeg and flac.

use crate::compare::{BACK, THROUGH, assert_agrees, both, finish};
use crate::world::Store;

fn media(options: &[&str]) {
    let store = Store::dev();
    let mut mount = store.mount_with(options);
    // With +faststart the whole file is moved within itself when it is complete, and its index put before it.
    let probe = "entries=format=duration,size:stream=codec_name,nb_read_frames\n\
        ffprobe -v error -count_frames -show_entries $entries -of csv film.mp4";
    let said = both(
        &mount,
        &format!(
            "make='ffmpeg -v error -nostdin -threads 1 -f lavfi'; exact='-fflags +bitexact -flags +bitexact'\n\
             $make -i testsrc2=size=320x240:rate=25:duration=4 -c:v mpeg4 -q:v 2 $exact -movflags +faststart film.mp4\n\
             {probe}; head -c 400 film.mp4 | grep -c moov\n\
             $make -i sine=duration=3 $exact sound.wav; flac --silent -o sound.flac sound.wav\n\
             flac --silent -t sound.flac; metaflac --set-tag=TITLE=sine sound.flac\n\
             metaflac --show-tag=TITLE sound.flac; flac --silent -t sound.flac"
        ),
    );
    assert!(said.starts_with("stream,mpeg4,100\n"), "{said}");
    assert_agrees(&store, &mount, &[]);
    mount.remount();
    mount.sh("flac --silent -t sound.flac");
    both(&mount, probe);
    finish(&store, &mut mount);
}

#[test]
fn encoders_leave_what_they_leave_on_a_local_disk() {
    media(THROUGH);
}

#[test]
fn encoders_leave_what_they_leave_on_a_local_disk_with_write_back() {
    media(BACK);
}
