//! Descriptors of staging files.
//!
//! Owns: which of the files are open: few, however many wait for their upload. Does not own: names and bytes (`disk`).

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Files of a disk that are open at once, but for those whose name is gone. On many systems a process may have 1,024 descriptors,
/// and sockets, databases and the disk cache need theirs.
pub(super) const OPEN_MAX: usize = 256;

/// The files of a disk that are open.
#[derive(Debug, Default)]
pub(super) struct Descriptors(Mutex<VecDeque<Weak<Descriptor>>>);

/// A file on the disk, which is opened when somebody needs it.
#[derive(Debug)]
pub(super) struct Descriptor {
    path: PathBuf,
    opened: Mutex<Opened>,
    /// Somebody has used it since it was looked at.
    is_used: AtomicBool,
}

#[derive(Debug, Default)]
struct Opened {
    file: Option<Arc<File>>,
    /// Nobody finds it under its path any more.
    is_nameless: bool,
}

impl Descriptor {
    pub(super) fn new(path: PathBuf) -> Descriptor {
        Descriptor { path, opened: Mutex::default(), is_used: AtomicBool::new(false) }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn opened(&self) -> MutexGuard<'_, Opened> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its name is about to go: whoever has the file reads on, so it stays open as long as somebody has it.
    ///
    /// # Errors
    /// Why it cannot be opened: the name has to stay then.
    pub(super) fn outlive_name(&self) -> io::Result<()> {
        let mut opened = self.opened();
        if opened.file.is_none() {
            match open(&self.path) {
                Ok(file) => opened.file = Some(Arc::new(file)),
                // What is in memory only is not there.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        opened.is_nameless = true;
        Ok(())
    }

    /// Closes it, unless somebody has used it since this was asked last. `false` if so. Whoever opens it next hears of what of it could
    /// not be written to the disk meanwhile (Documentation/core-api/errseq in the kernel's sources).
    fn close_unused(&self) -> bool {
        if self.is_used.swap(false, Ordering::Relaxed) {
            return false;
        }
        let mut opened = self.opened();
        if !opened.is_nameless {
            opened.file = None;
        }
        true
    }
}

impl Descriptors {
    /// The file, which is opened if it is not open.
    ///
    /// # Errors
    /// What the disk says.
    pub(super) fn file(&self, of: &Arc<Descriptor>) -> io::Result<Arc<File>> {
        of.is_used.store(true, Ordering::Relaxed);
        let file = {
            let mut opened = of.opened();
            if let Some(file) = &opened.file {
                return Ok(Arc::clone(file));
            }
            let file = Arc::new(open(&of.path)?);
            opened.file = Some(Arc::clone(&file));
            file
        };
        self.note_opened(of);
        Ok(file)
    }

    /// Takes a file that was just opened or made under its path.
    pub(super) fn take(&self, of: &Arc<Descriptor>, file: File) -> Arc<File> {
        let file = Arc::new(file);
        of.is_used.store(true, Ordering::Relaxed);
        of.opened().file = Some(Arc::clone(&file));
        self.note_opened(of);
        file
    }

    /// One more is open: the first of those that nobody has used lately is closed, if they are too many. Whoever reads or writes just
    /// now has the file itself.
    fn note_opened(&self, of: &Arc<Descriptor>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.push_back(Arc::downgrade(of));
        if open.len() > OPEN_MAX {
            open.retain(|known| known.strong_count() > 0);
        }
        while open.len() > OPEN_MAX
            && let Some(first) = open.pop_front()
        {
            if first.upgrade().is_some_and(|known| !known.close_unused()) {
                open.push_back(first);
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt;

    /// Files in `dir` that this process has open.
    fn count_open(dir: &Path) -> usize {
        let (dir, links) = (dir.canonicalize().unwrap(), std::fs::read_dir("/proc/self/fd").unwrap());
        let targets = links.filter_map(|link| std::fs::read_link(link.ok()?.path()).ok());
        targets.filter(|target| target.starts_with(&dir)).count()
    }

    #[test]
    fn few_files_are_open_and_all_can_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let open = Descriptors::default();
        let made = |i: usize| {
            let path = dir.path().join(i.to_string());
            let file = File::create_new(&path).unwrap();
            let descriptor = Arc::new(Descriptor::new(path));
            open.take(&descriptor, file).write_all_at(i.to_string().as_bytes(), 0).unwrap();
            descriptor
        };
        let all: Vec<_> = (0..OPEN_MAX + 40).map(made).collect();
        assert_eq!(count_open(dir.path()), OPEN_MAX);
        for (i, descriptor) in all.iter().enumerate() {
            let mut bytes = [0; 10];
            let len = open.file(descriptor).unwrap().read_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes[..len], i.to_string().as_bytes());
            // Whoever is used all the time is not closed.
            assert!(i == 0 || all[0].opened().file.is_some());
            open.file(&all[0]).unwrap();
        }
        assert_eq!(count_open(dir.path()), OPEN_MAX);
        drop(all);
        assert_eq!(count_open(dir.path()), 0);
    }

    #[test]
    fn a_file_that_loses_its_name_can_be_read_as_long_as_somebody_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let open = Descriptors::default();
        let (path, gone) = (dir.path().join("a"), dir.path().join("in memory"));
        std::fs::write(&path, b"bytes").unwrap();
        let descriptor = Arc::new(Descriptor::new(path.clone()));
        descriptor.outlive_name().unwrap();
        std::fs::remove_file(&path).unwrap();
        assert!(descriptor.close_unused());
        let mut bytes = [0; 5];
        open.file(&descriptor).unwrap().read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(&bytes, b"bytes");
        let descriptor = Arc::new(Descriptor::new(gone));
        descriptor.outlive_name().unwrap();
        open.file(&descriptor).unwrap_err();
    }
}
