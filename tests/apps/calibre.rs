//! A library of calibre in the mount. In the full run only: calibre is large.

use crate::compare::{both, finish};
use crate::running::need;
use crate::world::{Mount, Store, is_full_run};
use std::fs;

/// Writes a book with a title, an author and a cover that others have made.
const BOOK: &str = "import zipfile\n\
    path, title, author, cover = sys.argv[1:]\n\
    with zipfile.ZipFile(path, 'w') as z:\n\
    \x20   z.writestr('mimetype', 'application/epub+zip')\n\
    \x20   z.writestr('META-INF/container.xml', '<?xml version=\"1.0\"?><container version=\"1.0\" '\n\
    \x20       'xmlns=\"urn:oasis:names:tc:opendocument:xmlns:container\"><rootfiles><rootfile full-path=\"book.opf\" '\n\
    \x20       'media-type=\"application/oebps-package+xml\"/></rootfiles></container>')\n\
    \x20   z.writestr('book.opf', '<?xml version=\"1.0\"?><package xmlns=\"http://www.idpf.org/2007/opf\" version=\"2.0\" '\n\
    \x20       'unique-identifier=\"id\"><metadata xmlns:dc=\"http://purl.org/dc/elements/1.1/\" '\n\
    \x20       'xmlns:opf=\"http://www.idpf.org/2007/opf\"><dc:identifier id=\"id\">' + title + '</dc:identifier>'\n\
    \x20       '<dc:title>' + title + '</dc:title><dc:creator opf:role=\"aut\">' + author + '</dc:creator>'\n\
    \x20       '<dc:language>en</dc:language><meta name=\"cover\" content=\"cover\"/></metadata><manifest>'\n\
    \x20       '<item id=\"cover\" href=\"cover.jpg\" media-type=\"image/jpeg\"/>'\n\
    \x20       '<item id=\"text\" href=\"text.xhtml\" media-type=\"application/xhtml+xml\"/></manifest>'\n\
    \x20       '<spine><itemref idref=\"text\"/></spine></package>')\n\
    \x20   z.writestr('text.xhtml', '<html xmlns=\"http://www.w3.org/1999/xhtml\"><head><title>t</title></head><body>'\n\
    \x20       '<p>' + title * 1000 + '</p></body></html>')\n\
    \x20   z.write(cover, 'cover.jpg')";

/// Its settings and its cache are beside the directory.
const CALIBRE: &str = "export CALIBRE_CONFIG_DIRECTORY=\"$PWD.config\" CALIBRE_CACHE_DIRECTORY=\"$PWD.cache\"\n\
    export CALIBRE_TEMP_DIR=\"$PWD.temp\" QT_QPA_PLATFORM=offscreen LC_ALL=C.UTF-8; mkdir -p \"$CALIBRE_TEMP_DIR\"\n\
    db() { command=$1; shift; calibredb $command --with-library \"$PWD/library\" \"$@\"; }\n\
    list() { db list --for-machine --fields title,authors --sort-by title --ascending; }\n";

fn make_books(mount: &Mount<'_>) {
    fs::create_dir(mount.outside("books")).unwrap();
    mount.sh("ffmpeg -v error -nostdin -f lavfi -i color=red:size=60x80 -frames:v 1 -pix_fmt yuvj420p ../cover.jpg");
    for (title, author) in [("Faust", "Johann Goethe"), ("Emma", "Jane Austen"), ("Walden", "Henry Thoreau")] {
        mount.py(BOOK, &[&format!("../books/{title}.epub"), title, author, "../cover.jpg"]);
    }
}

#[test]
fn full_calibre_keeps_its_library_in_the_mount() {
    if !is_full_run() {
        return;
    }
    need("calibredb", "calibre");
    let store = Store::dev();
    let mut mount = store.mount();
    make_books(&mount);
    let added = both(&mount, &format!("{CALIBRE}mkdir library; db add ../books/*.epub > /dev/null; list"));
    for title in ["Emma", "Faust", "Walden"] {
        assert!(added.contains(title), "{added}");
    }
    let export = "db export --all --dont-update-metadata --dont-write-opf --to-dir \"$PWD/out\" > /dev/null\n\
        cd out; find . -type f | sort; find . -name '*.epub' -exec sha256sum {} + | cut -c -64 | sort";
    let exported = both(&mount, &format!("{CALIBRE}{export}"));
    let sums = mount.sh("sha256sum ../books/*.epub | cut -c -64 | sort");
    assert!(exported.ends_with(&sums), "{exported}{sums}");
    both(&mount, &format!("{CALIBRE}db remove --permanent 1; list"));
    mount.remount();
    let left = both(&mount, &format!("{CALIBRE}list"));
    assert_eq!(added.matches("title").count(), 3, "{added}");
    assert_eq!(left.matches("title").count(), 2, "{left}");
    assert_eq!(mount.sh("sqlite3 library/metadata.db 'pragma integrity_check'"), "ok\n");
    finish(&store, &mut mount);
}
