//! Room and holes: fallocate(2), SEEK_DATA and SEEK_HOLE, compared with a file of the local disk.

use crate::common::{Store, errno, eventually, noise};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;

/// What a step of fallocate(1) makes of the bytes of a file.
type Effect = fn(&mut Vec<u8>);

/// util-linux's program, whose options are modes of the system call. `false` if the file system does not do that.
fn fallocate_program(options: &str, file: &Path) -> bool {
    Command::new("fallocate").args(options.split(' ')).arg(file).output().unwrap().status.success()
}

#[test]
fn fallocate_makes_of_a_file_what_it_makes_on_a_local_disk() {
    let store = Store::dev();
    let mut wanted = noise(1, 3 << 20);
    store.put("file", &wanted);
    let mount = store.mount();
    let local = mount.outside("local");
    fs::write(&local, &wanted).unwrap();
    let steps: [(&str, Effect); 10] = [
        ("-p -o 5000 -l 100000", |bytes| bytes[5000..105_000].fill(0)),
        ("-z -o 1000000 -l 7", |bytes| bytes[1_000_000..1_000_007].fill(0)),
        ("-n -z -o 3000000 -l 1000000", |bytes| bytes[3_000_000..].fill(0)),
        ("-n -l 9000000", |_| {}),
        ("-l 2000000", |_| {}),
        ("-z -o 2990000 -l 500000", |bytes| {
            bytes[2_990_000..].fill(0);
            bytes.resize(3_490_000, 0);
        }),
        ("-o 3900000 -l 100001", |bytes| bytes.resize(4_000_001, 0)),
        ("-p -o 3999990 -l 100", |_| {}),
        ("-d", |_| {}),
        ("-p -o 0 -l 5000000", |bytes| bytes.fill(0)),
    ];
    for (options, effect) in steps {
        // Pages that the kernel keeps must not show what was there.
        assert!(fs::read(mount.at("file")).unwrap() == wanted, "before {options}");
        effect(&mut wanted);
        assert!(fallocate_program(options, &mount.at("file")), "{options}");
        assert!(fs::read(mount.at("file")).unwrap() == wanted, "{options}: the file differs");
        assert!(store.get("file") == wanted, "{options}: the object differs");
        if fallocate_program(options, &local) {
            assert!(fs::read(&local).unwrap() == wanted, "{options} does something else on this disk");
        } else {
            // tmpfs, for one, does not make zeros of a range.
            fs::write(&local, &wanted).unwrap();
        }
    }
}

#[test]
fn a_file_may_be_made_by_fallocate() {
    let store = Store::dev();
    let mount = store.mount();
    mount.sh("fallocate -l 1048577 new");
    assert_eq!(fs::metadata(mount.at("new")).unwrap().len(), 1_048_577);
    assert!(store.get("new") == vec![0; 1_048_577]);
    mount.sh(": > empty; fallocate -n -l 1000 empty");
    mount.settle();
    assert_eq!((store.get("empty"), fs::metadata(mount.at("empty")).unwrap().len()), (Vec::new(), 0));
}

#[test]
fn open_files_show_zeros_at_once_and_the_time_moves() {
    let store = Store::dev();
    let mut bytes = noise(2, 20 << 20);
    store.put("large", &bytes);
    let mount = store.mount();
    let reader = File::open(mount.at("large")).unwrap();
    let writer = OpenOptions::new().write(true).open(mount.at("large")).unwrap();
    let mut read = vec![0; 1 << 20];
    reader.read_exact_at(&mut read, 9 << 20).unwrap();
    assert!(read == bytes[9 << 20..10 << 20]);
    let before = reader.metadata().unwrap();
    let punched = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&writer, punched, (9 << 20) + 10, 500_000).unwrap();
    bytes[(9 << 20) + 10..(9 << 20) + 500_010].fill(0);
    reader.read_exact_at(&mut read, 9 << 20).unwrap();
    assert!(read == bytes[9 << 20..10 << 20], "before the close");
    let after = reader.metadata().unwrap();
    assert!((after.mtime(), after.mtime_nsec()) > (before.mtime(), before.mtime_nsec()));
    assert_eq!(after.len(), before.len());
    writer.write_all_at(b"in the hole", (9 << 20) + 1000).unwrap();
    bytes[(9 << 20) + 1000..(9 << 20) + 1011].copy_from_slice(b"in the hole");
    drop(writer);
    eventually("the object has the hole", || (store.get("large") == bytes).then_some(()));
    assert!(fs::read(mount.at("large")).unwrap() == bytes);
}

#[test]
fn programs_find_holes_and_data() {
    let store = Store::dev();
    let mount = store.mount();
    let script = "
f = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
os.write(f, b'head')
os.posix_fallocate(f, 0, 1 << 20)
os.pwrite(f, b'tail', 1 << 19)
def seek(offset, whence):
    try:
        return os.lseek(f, offset, whence)
    except OSError as e:
        return errno.errorcode[e.errno]
end = 1 << 20
print(os.fstat(f).st_size, seek(0, os.SEEK_DATA), seek(1 << 19, os.SEEK_DATA), seek(end, os.SEEK_DATA),
    seek(end, os.SEEK_HOLE), seek(end + 1, os.SEEK_HOLE))
if len(sys.argv) > 2:
    print(seek(0, os.SEEK_HOLE), seek(4, os.SEEK_DATA), seek(1 << 19, os.SEEK_HOLE), seek((1 << 19) + 4, os.SEEK_DATA))
    os.close(f)
    f = os.open(sys.argv[1], os.O_RDONLY)
    print(seek(0, os.SEEK_HOLE), seek(4, os.SEEK_DATA), seek(end, os.SEEK_DATA))
os.close(f)
";
    let shown = mount.py(script, &["sparse", "here"]);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines, ["1048576 0 524288 ENXIO ENXIO ENXIO", "4 524288 524292 ENXIO", "1048576 4 ENXIO"]);
    let local = mount.outside("sparse");
    let on_disk = mount.py(script, &[local.to_str().unwrap()]);
    assert_eq!(on_disk.lines().next(), lines.first().copied(), "as on a local disk");
    assert!(store.get("sparse") == fs::read(local).unwrap());
    let mapped = "f = os.open('mapped', os.O_RDWR | os.O_CREAT)\n\
        os.ftruncate(f, 1 << 20)\n\
        try: os.lseek(f, 0, os.SEEK_DATA)\n\
        except OSError as e: print(errno.errorcode[e.errno])\n\
        m = mmap.mmap(f, 0)\n\
        m[700000:700004] = b'data'\n\
        m.flush()\n\
        print(os.lseek(f, 0, os.SEEK_DATA) <= 700000, os.lseek(f, 700000, os.SEEK_DATA))";
    assert_eq!(mount.py(mapped, &[]), "ENXIO\nTrue 700000\n", "a store is data once msync has written it");
    mount.sh("cp --sparse=always sparse copy && cmp sparse copy");
    assert!(store.get("copy") == store.get("sparse"));
}

#[test]
fn what_cannot_be_had_is_refused_and_nothing_changes() {
    let store = Store::dev();
    let mount = store.mount_with(&["staging_size=8M"]);
    fs::write(mount.at("file"), "0123456789").unwrap();
    let file = OpenOptions::new().read(true).write(true).open(mount.at("file")).unwrap();
    let none = FallocateFlags::empty();
    for mode in [none, FallocateFlags::FALLOC_FL_KEEP_SIZE, FallocateFlags::FALLOC_FL_ZERO_RANGE] {
        assert_eq!(fallocate(&file, mode, 0, 9 << 20), Err(Errno::ENOSPC), "{mode:?}");
    }
    assert_eq!(fallocate(&file, none, 1 << 50, 1), Err(Errno::EFBIG));
    let others = [
        FallocateFlags::FALLOC_FL_COLLAPSE_RANGE,
        FallocateFlags::FALLOC_FL_INSERT_RANGE,
        FallocateFlags::FALLOC_FL_UNSHARE_RANGE,
    ];
    for mode in others {
        assert_eq!(fallocate(&file, mode, 0, 4096), Err(Errno::EOPNOTSUPP), "{mode:?}");
    }
    assert_eq!(file.metadata().unwrap().len(), 10);
    drop(file);
    assert_eq!(store.text("file"), "0123456789");
    let reader = File::open(mount.at("file")).unwrap();
    let refused = fallocate(&reader, none, 0, 20).map_err(std::io::Error::from);
    assert_eq!(errno(refused), libc::EBADF);
    let grown = OpenOptions::new().write(true).open(mount.at("file")).unwrap();
    fallocate(&grown, none, 0, 7 << 20).unwrap();
    drop(grown);
    assert_eq!(store.get("file").len(), 7 << 20);
}

/// The journal counts on bytes of the staging file.
#[test]
fn a_hole_that_was_not_acknowledged_is_undone_by_a_crash() {
    let store = Store::dev();
    let mut mount = store.mount_with(&["write=back", "upload_delay=1h"]);
    let bytes = noise(3, 400_000);
    let file = OpenOptions::new().read(true).write(true).create_new(true).open(mount.at("file")).unwrap();
    file.write_all_at(&bytes, 0).unwrap();
    // The close of a second descriptor is one that is acknowledged. No handle is released, which would journal what there is then.
    drop(file.try_clone().unwrap());
    let punched = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    fallocate(&file, punched, 0, 200_000).unwrap();
    let mut read = vec![1; 200_000];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read == vec![0; 200_000]);
    mount.kill();
    drop(file);
    mount.mount_again();
    assert!(fs::read(mount.at("file")).unwrap() == bytes);
    mount.unmount();
    assert!(store.get("file") == bytes);
}
