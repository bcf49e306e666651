//! An EPUB 3 book with two chapters, one in English and one in Japanese.
//!
//! Owns: the package and its text.
//! Does not own: the zip format (crate `zip`).

use std::io::{self, Cursor, Write};

use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, DateTime, ZipWriter};

const CONTAINER: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<container version="1.0" xmlns="urn:oasis:names:tc:opendocument:xmlns:container">
  <rootfiles>
    <rootfile full-path="EPUB/package.opf" media-type="application/oebps-package+xml"/>
  </rootfiles>
</container>
"#;

const PACKAGE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<package xmlns="http://www.idpf.org/2007/opf" version="3.0" unique-identifier="book-id" xml:lang="en">
  <metadata xmlns:dc="http://purl.org/dc/elements/1.1/">
    <dc:identifier id="book-id">urn:uuid:6f1d3c52-7d0a-4b8e-9a41-0c5b7e2f8d13</dc:identifier>
    <dc:title>Two Lighthouses (二つの灯台)</dc:title>
    <dc:creator>objfs</dc:creator>
    <dc:language>en</dc:language>
    <dc:language>ja</dc:language>
    <meta property="dcterms:modified">2026-01-01T00:00:00Z</meta>
  </metadata>
  <manifest>
    <item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
    <item id="chapter-1" href="chapter-1.xhtml" media-type="application/xhtml+xml"/>
    <item id="chapter-2" href="chapter-2.xhtml" media-type="application/xhtml+xml"/>
  </manifest>
  <spine>
    <itemref idref="chapter-1"/>
    <itemref idref="chapter-2"/>
  </spine>
</package>
"#;

const NAVIGATION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<html xmlns="http://www.w3.org/1999/xhtml" xmlns:epub="http://www.idpf.org/2007/ops" lang="en" xml:lang="en">
  <head><title>Contents</title></head>
  <body>
    <nav epub:type="toc">
      <h1>Contents</h1>
      <ol>
        <li><a href="chapter-1.xhtml">The northern lighthouse</a></li>
        <li><a href="chapter-2.xhtml">南の灯台</a></li>
      </ol>
    </nav>
  </body>
</html>
"#;

const CHAPTER_1: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<html xmlns="http://www.w3.org/1999/xhtml" lang="en" xml:lang="en">
  <head><title>The northern lighthouse</title></head>
  <body>
    <h1>The northern lighthouse</h1>
    <p>The keeper of the northern lighthouse wrote one letter a day, and one letter a day came back. Neither of the
    two had ever seen the other; there was too much sea between them.</p>
    <p>“If a letter gets lost,” wrote the keeper, “send me a copy, and I shall know it by its number.” So they
    numbered everything, even the gulls.</p>
  </body>
</html>
"#;

const CHAPTER_2: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<html xmlns="http://www.w3.org/1999/xhtml" lang="ja" xml:lang="ja">
  <head><title>南の灯台</title></head>
  <body>
    <h1>南の灯台</h1>
    <p>南の灯台には、毎日一通の手紙が届いた。波の高い日も、霧の深い日も、手紙は必ず届いた。</p>
    <p>「番号のない手紙は、読まずに返します」と灯台守は書いた。そして窓の明かりをつけて、次の手紙を待った。</p>
  </body>
</html>
"#;

/// What the zip holds, in order: readers look for `mimetype` at a fixed offset, so it comes first.
const ENTRIES: [(&str, &str); 6] = [
    ("mimetype", "application/epub+zip"),
    ("META-INF/container.xml", CONTAINER),
    ("EPUB/package.opf", PACKAGE),
    ("EPUB/nav.xhtml", NAVIGATION),
    ("EPUB/chapter-1.xhtml", CHAPTER_1),
    ("EPUB/chapter-2.xhtml", CHAPTER_2),
];

/// The whole book. Everything is stored: the text is short, and `mimetype` has to be.
pub(super) fn book() -> io::Result<Vec<u8>> {
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Stored)
        .last_modified_time(DateTime::DEFAULT)
        .unix_permissions(0o644);
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, text) in ENTRIES {
        zip.start_file(name, options)?;
        zip.write_all(text.as_bytes())?;
    }
    Ok(zip.finish()?.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn mimetype_is_first_stored_and_without_extra_field() {
        let book = book().unwrap();
        assert_eq!(&book[..4], b"PK\x03\x04");
        assert_eq!(&book[8..10], [0, 0], "stored");
        assert_eq!(&book[26..30], [8, 0, 0, 0], "length of the name, no extra field");
        assert_eq!(&book[30..58], b"mimetypeapplication/epub+zip");
    }

    #[test]
    fn every_entry_reads_back() {
        let mut zip = zip::ZipArchive::new(Cursor::new(book().unwrap())).unwrap();
        assert_eq!(zip.len(), ENTRIES.len());
        for (name, text) in ENTRIES {
            let mut read = String::new();
            zip.by_name(name).unwrap().read_to_string(&mut read).unwrap();
            assert_eq!(read, text);
        }
    }

    #[test]
    fn package_names_what_is_there_and_the_spine_what_is_named() {
        let attribute = |text: &str, name: &str| -> Vec<String> {
            text.split(&format!(" {name}=\"")).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect()
        };
        let has = |name: &str| ENTRIES.iter().any(|(entry, _)| *entry == name);
        assert!(attribute(CONTAINER, "full-path").iter().all(|path| has(path)));
        let hrefs = attribute(PACKAGE, "href");
        assert_eq!(hrefs.len(), 3);
        assert!(hrefs.iter().chain(&attribute(NAVIGATION, "href")).all(|href| has(&format!("EPUB/{href}"))));
        let ids = attribute(PACKAGE, "id");
        assert!(attribute(PACKAGE, "idref").iter().all(|id| ids.contains(id)));
        assert!(ids.contains(&attribute(PACKAGE, "unique-identifier")[0]));
    }
}
