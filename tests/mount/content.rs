//! Bytes of files: written, read back, changed in place, cut, mapped.

use crate::common::{Store, errno, eventually, noise};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};

#[test]
fn a_file_is_an_object_with_the_same_bytes() {
    let store = Store::dev();
    let mount = store.mount();
    for (name, len) in [("empty", 0), ("small.txt", 5), ("page", 4096), ("odd", 1_234_567)] {
        let bytes = noise(len as u64, len);
        fs::write(mount.at(name), &bytes).unwrap();
        if len == 0 {
            // The close of a new file that nobody has written to is journaled, and an object soon after.
            mount.settle();
        }
        assert_eq!(store.get(name), bytes, "{name}");
        assert_eq!(fs::read(mount.at(name)).unwrap(), bytes, "{name}");
        assert_eq!(fs::metadata(mount.at(name)).unwrap().len(), len as u64, "{name}");
    }
    assert_eq!(store.keys(), ["empty", "odd", "page", "small.txt"]);
    assert_eq!(store.content_type("small.txt").as_deref(), Some("text/plain"));
}

#[test]
fn an_object_is_a_file_with_the_same_bytes() {
    let store = Store::dev();
    let bytes = noise(1, 3_000_001);
    store.put("deep/er/file.bin", &bytes);
    let mount = store.mount();
    assert_eq!(fs::read(mount.at("deep/er/file.bin")).unwrap(), bytes);
    let file = File::open(mount.at("deep/er/file.bin")).unwrap();
    for (offset, len) in [(0, 1), (4095, 2), (1_048_575, 2), (2_999_000, 1001), (1_000_000, 1_500_000)] {
        let mut read = vec![0; len];
        file.read_exact_at(&mut read, offset as u64).unwrap();
        assert_eq!(read, bytes[offset..offset + len], "{len} bytes at {offset}");
    }
    assert_eq!(file.read_at(&mut [0; 10], 3_000_001).unwrap(), 0, "past the end");
}

#[test]
fn a_large_file_goes_up_in_parts_and_comes_back_whole() {
    let store = Store::dev();
    let mount = store.mount();
    let bytes = noise(2, (40 << 20) + 17);
    fs::write(mount.at("large"), &bytes).unwrap();
    assert!(store.get("large") == bytes, "the object differs");
    assert!(fs::read(mount.at("large")).unwrap() == bytes, "the file differs");
    assert!(store.server().counters().of("CompleteMultipartUpload") >= 1);
    assert_eq!(store.open_uploads(), 0);
}

#[test]
fn appending_goes_on_where_the_file_ends() {
    let store = Store::dev();
    store.put("log", "one\n");
    let mount = store.mount();
    mount.sh("echo two >> log; echo three >> log");
    assert_eq!(store.text("log"), "one\ntwo\nthree\n");
    assert_eq!(fs::read_to_string(mount.at("log")).unwrap(), "one\ntwo\nthree\n");
}

#[test]
fn two_appending_handles_never_overwrite_each_other() {
    let store = Store::dev();
    let mount = store.mount();
    let open = || OpenOptions::new().append(true).create(true).open(mount.at("log")).unwrap();
    let (mut a, mut b) = (open(), open());
    for i in 0..20 {
        writeln!(a, "a{i}").unwrap();
        writeln!(b, "b{i}").unwrap();
    }
    drop((a, b));
    let wanted: String = (0..20).map(|i| format!("a{i}\nb{i}\n")).collect();
    eventually("the object has all lines", || (store.text("log") == wanted).then_some(()));
    assert_eq!(fs::read_to_string(mount.at("log")).unwrap(), wanted);
}

#[test]
fn a_write_in_the_middle_changes_just_that() {
    let store = Store::dev();
    let mut bytes = noise(3, 5 << 20);
    store.put("file", &bytes);
    let mount = store.mount();
    let file = OpenOptions::new().read(true).write(true).open(mount.at("file")).unwrap();
    for (offset, len) in [(100, 50), (3_000_000, 100_000), (0, 1), ((5 << 20) - 3, 10)] {
        let patch = noise(offset as u64 + 99, len);
        file.write_all_at(&patch, offset as u64).unwrap();
        bytes.resize(bytes.len().max(offset + len), 0);
        bytes[offset..offset + len].copy_from_slice(&patch);
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == bytes, "before the close, after {len} bytes at {offset}");
    }
    drop(file);
    assert!(store.get("file") == bytes, "the object differs");
    assert!(fs::read(mount.at("file")).unwrap() == bytes, "the file differs");
}

#[test]
fn truncating_cuts_and_extends_with_zeros() {
    let store = Store::dev();
    store.put("file", "0123456789");
    let mount = store.mount();
    mount.sh("truncate -s 4 file");
    assert_eq!(store.text("file"), "0123", "by path: at once");
    mount.sh("truncate -s 8 file");
    assert_eq!(store.get("file"), b"0123\0\0\0\0");
    let file = OpenOptions::new().write(true).open(mount.at("file")).unwrap();
    file.set_len(2).unwrap();
    assert_eq!(fs::metadata(mount.at("file")).unwrap().len(), 2, "before the close");
    file.set_len(5).unwrap();
    drop(file);
    assert_eq!(store.get("file"), b"01\0\0\0");
    assert_eq!(fs::read(mount.at("file")).unwrap(), b"01\0\0\0");
    mount.sh(": > file");
    assert_eq!(store.get("file"), b"");
}

#[test]
fn opening_with_truncate_and_no_write_empties_the_file() {
    let store = Store::dev();
    store.put("file", "0123456789");
    let mount = store.mount();
    drop(OpenOptions::new().write(true).truncate(true).open(mount.at("file")).unwrap());
    assert_eq!(fs::metadata(mount.at("file")).unwrap().len(), 0);
    eventually("the object is empty", || store.get("file").is_empty().then_some(()));
}

#[test]
fn exclusive_creation_fails_if_the_name_is_taken() {
    let store = Store::dev();
    store.put("there", "x");
    let mount = store.mount();
    let create = |name: &str| OpenOptions::new().write(true).create_new(true).open(mount.at(name));
    assert_eq!(errno(create("there")), libc::EEXIST);
    drop(create("new").unwrap());
    assert_eq!(errno(create("new")), libc::EEXIST);
    mount.settle();
    assert_eq!(store.get("new"), b"");
}

#[test]
fn a_sparse_file_reads_zeros_in_its_holes() {
    let store = Store::dev();
    let mount = store.mount();
    let mut file = File::create(mount.at("sparse")).unwrap();
    file.write_all(b"head").unwrap();
    file.seek(SeekFrom::Start(3 << 20)).unwrap();
    file.write_all(b"tail").unwrap();
    drop(file);
    let mut wanted = vec![0; (3 << 20) + 4];
    wanted[..4].copy_from_slice(b"head");
    wanted[3 << 20..].copy_from_slice(b"tail");
    assert!(fs::read(mount.at("sparse")).unwrap() == wanted);
    assert!(store.get("sparse") == wanted);
}

#[test]
fn what_one_handle_writes_another_reads_at_once() {
    let store = Store::dev();
    store.put("file", "old content");
    let mount = store.mount();
    let mut reader = File::open(mount.at("file")).unwrap();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert_eq!(text, "old content");
    let writer = OpenOptions::new().write(true).open(mount.at("file")).unwrap();
    writer.write_all_at(b"NEW", 0).unwrap();
    let mut read = [0; 11];
    reader.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"NEW content");
    let late = File::open(mount.at("file")).unwrap();
    late.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"NEW content");
    drop(writer);
    reader.read_exact_at(&mut read, 0).unwrap();
    assert_eq!(&read, b"NEW content", "after the commit");
    assert_eq!(fs::read_to_string(mount.at("file")).unwrap(), "NEW content");
}

#[test]
fn a_file_that_is_being_written_is_readable_by_name() {
    let store = Store::dev();
    let mount = store.mount();
    let mut file = File::create(mount.at("growing")).unwrap();
    for i in 1..=5 {
        file.write_all(b"0123456789").unwrap();
        assert_eq!(fs::metadata(mount.at("growing")).unwrap().len(), i * 10);
        assert_eq!(fs::read(mount.at("growing")).unwrap().len() as u64, i * 10);
    }
    drop(file);
    assert_eq!(store.get("growing").len(), 50);
}

#[test]
fn fsync_puts_the_object_there_while_the_file_is_open() {
    let store = Store::dev();
    let mount = store.mount();
    let mut file = File::create(mount.at("file")).unwrap();
    file.write_all(b"one").unwrap();
    assert_eq!(store.try_get("file"), None, "nothing was acknowledged yet");
    file.sync_all().unwrap();
    assert_eq!(store.text("file"), "one");
    file.write_all(b" two").unwrap();
    file.sync_data().unwrap();
    assert_eq!(store.text("file"), "one two");
    drop(file);
    assert_eq!(store.text("file"), "one two");
}

#[test]
fn every_size_around_a_block_survives_rewriting_in_pieces() {
    let store = Store::dev();
    let mount = store.mount();
    const MIB: usize = 1 << 20;
    for len in [MIB - 1, MIB, MIB + 1, 2 * MIB + 1] {
        let name = format!("f{len}");
        let bytes = noise(len as u64, len);
        let file = File::create(mount.at(&name)).unwrap();
        for (i, piece) in bytes.chunks(300_007).enumerate().rev() {
            file.write_all_at(piece, (i * 300_007) as u64).unwrap();
        }
        drop(file);
        assert!(store.get(&name) == bytes && fs::read(mount.at(&name)).unwrap() == bytes, "{name}");
    }
}

#[test]
fn a_mapped_file_reads_what_it_holds() {
    let store = Store::dev();
    let bytes = noise(9, 3 << 20);
    store.put("mapped", &bytes);
    let mount = store.mount();
    let sum = mount.py(
        "import hashlib\n\
         with open('mapped', 'rb') as f, mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as m:\n\
         \x20   assert m[1048570:1048580] == os.pread(f.fileno(), 10, 1048570)\n\
         \x20   private = mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_COPY)\n\
         \x20   private[5:9] = b'mine'\n\
         \x20   assert private[5:9] == b'mine' and os.pread(f.fileno(), 4, 5) != b'mine'\n\
         \x20   print(hashlib.sha256(m).hexdigest())",
        &[],
    );
    use sha2::{Digest, Sha256};
    let wanted: String = Sha256::digest(&bytes).iter().map(|b| format!("{b:02x}")).collect();
    assert_eq!(sum.trim(), wanted);
    assert!(store.get("mapped") == bytes, "stores to a private mapping are its own");
}

/// The kernel writes the pages of a mapping by the handle that was mapped, also one that appends.
#[test]
fn stores_to_a_mapping_of_a_handle_that_appends_stay_in_their_place() {
    let store = Store::dev();
    store.put("mapped", vec![b'.'; 10_000]);
    let mount = store.mount();
    mount.py(
        "f = os.open('mapped', os.O_RDWR | os.O_APPEND)\n\
         m = mmap.mmap(f, 0)\n\
         m[5000:5005] = b'HELLO'\n\
         m.flush()\n\
         os.write(f, b'end')\n\
         m[100:104] = b'page'\n\
         m.close()\n\
         os.close(f)",
        &[],
    );
    let mut wanted = vec![b'.'; 10_000];
    wanted[5000..5005].copy_from_slice(b"HELLO");
    wanted[100..104].copy_from_slice(b"page");
    wanted.extend(b"end");
    eventually("stores and what was appended are in the object", || (store.get("mapped") == wanted).then_some(()));
}

/// F_SETFL changes how an open file is written to.
#[test]
fn a_handle_that_is_told_to_append_does_so() {
    let store = Store::dev();
    store.put("log", "one ");
    let mount = store.mount();
    mount.py(
        "import fcntl\n\
         f = os.open('log', os.O_WRONLY)\n\
         fcntl.fcntl(f, fcntl.F_SETFL, os.O_APPEND)\n\
         os.pwrite(f, b'two ', 0)\n\
         fcntl.fcntl(f, fcntl.F_SETFL, 0)\n\
         os.pwrite(f, b'ONE', 0)\n\
         os.close(f)",
        &[],
    );
    assert_eq!(store.text("log"), "ONE two ");
}

#[test]
fn stores_to_a_shared_mapping_reach_the_object() {
    let store = Store::dev();
    store.put("mapped", vec![b'.'; 100_000]);
    let mount = store.mount();
    mount.py(
        "f = os.open('mapped', os.O_RDWR)\n\
         m = mmap.mmap(f, 0)\n\
         m[50000:50005] = b'HELLO'\n\
         m.flush()\n\
         os.close(f)\n\
         m[99990:99995] = b'AFTER'\n\
         m.close()",
        &[],
    );
    let mut wanted = vec![b'.'; 100_000];
    wanted[50000..50005].copy_from_slice(b"HELLO");
    wanted[99990..99995].copy_from_slice(b"AFTER");
    eventually("both stores are in the object", || (store.get("mapped") == wanted).then_some(()));
    assert!(fs::read(mount.at("mapped")).unwrap() == wanted);
}

#[test]
fn direct_io_reads_and_writes() {
    let store = Store::dev();
    let bytes = noise(4, 1 << 20);
    store.put("file", &bytes);
    let mount = store.mount();
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(mount.at("file")).unwrap();
    let mut read = vec![0; 1 << 20];
    file.read_exact_at(&mut read, 0).unwrap();
    assert!(read == bytes);
    file.write_all_at(&noise(5, 8192), 4096).unwrap();
    drop(file);
    let mut wanted = bytes;
    wanted[4096..4096 + 8192].copy_from_slice(&noise(5, 8192));
    assert!(store.get("file") == wanted);
}

#[test]
fn reading_does_not_change_the_bucket() {
    let store = Store::dev();
    store.put("a/file", "x");
    store.put("b", "y");
    let before = store.list_everything();
    let mut mount = store.mount();
    mount.sh("ls -lR . > /dev/null; cat a/file b > /dev/null; stat a b > /dev/null; find . > /dev/null");
    mount.unmount();
    assert_eq!(store.list_everything(), before);
    assert_eq!(store.server().counters().of("PutObject"), 2);
}

#[test]
fn blocks_and_size_agree() {
    let store = Store::dev();
    store.put("file", vec![1; 10_000]);
    let mount = store.mount();
    let meta = fs::metadata(mount.at("file")).unwrap();
    assert_eq!((meta.len(), meta.blocks(), meta.nlink()), (10_000, 20, 1));
    assert_eq!(mount.sh("du -B1 --apparent-size file").split('\t').next(), Some("10000"));
}
