//! A PDF 1.4 file with two pages of text.
//!
//! Owns: the objects, the cross-reference table, the pages' text.
//! Does not own: fonts (viewers bring Helvetica).

/// The pages: a heading and its lines.
const PAGES: [(&str, &[&str]); 2] = [
    (
        "How a bucket becomes a folder",
        &[
            "An object has a key, some headers, and bytes. A file has a path,",
            "some attributes, and bytes. objfs lays the one over the other:",
            "the key photos/2024/sea.jpg is the file sea.jpg in photos/2024.",
            "",
            "Nothing is packed or renamed on the way. Any other S3 program",
            "reads what you save here, and you see what it uploads.",
            "",
            "Turn to the second page, then save a copy of this file beside it.",
        ],
    ),
    (
        "Wie aus einem Eimer ein Ordner wird",
        &[
            "Ein Objekt hat einen Schlüssel, ein paar Kopfzeilen und Bytes.",
            "Eine Datei hat einen Pfad, ein paar Attribute und Bytes.",
            "objfs legt das eine über das andere, größer ist der Unterschied nicht.",
            "",
            "Ça marche aussi en français, y también en español.",
        ],
    ),
];

/// The whole file.
pub(super) fn document() -> Vec<u8> {
    let page_numbers: Vec<usize> = (0..PAGES.len()).map(|index| 5 + 2 * index).collect();
    let kids: Vec<String> = page_numbers.iter().map(|number| format!("{number} 0 R")).collect();
    let mut objects = vec![
        b"<< /Type /Catalog /Pages 2 0 R /Lang (en) >>".to_vec(),
        format!("<< /Type /Pages /Kids [{}] /Count {} >>", kids.join(" "), PAGES.len()).into_bytes(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>".to_vec(),
        [b"<< /Title ".to_vec(), literal(PAGES[0].0), b" /Producer (objfs) >>".to_vec()].concat(),
    ];
    for (number, (heading, lines)) in page_numbers.iter().zip(PAGES) {
        let page = format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >> \
             /Contents {} 0 R >>",
            number + 1
        );
        objects.push(page.into_bytes());
        let content = content(heading, lines);
        let head = format!("<< /Length {} >>\nstream\n", content.len());
        objects.push([head.as_bytes(), &content, b"\nendstream"].concat());
    }
    file(&objects)
}

/// Objects 1, 2, ... of which the first is the catalog and the fourth the information dictionary.
fn file(objects: &[Vec<u8>]) -> Vec<u8> {
    // The second line tells transfer programs that the file is binary.
    let mut file = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n".to_vec();
    // Entries are 20 bytes with their line's end; object 0 heads the list of free ones.
    let mut table = format!("xref\n0 {}\n0000000000 65535 f \n", objects.len() + 1);
    for (index, object) in objects.iter().enumerate() {
        table.push_str(&format!("{:010} 00000 n \n", file.len()));
        file.extend_from_slice(format!("{} 0 obj\n", index + 1).as_bytes());
        file.extend_from_slice(object);
        file.extend_from_slice(b"\nendobj\n");
    }
    let table_offset = file.len();
    file.extend_from_slice(table.as_bytes());
    let trailer = format!(
        "trailer\n<< /Size {} /Root 1 0 R /Info 4 0 R >>\nstartxref\n{table_offset}\n%%EOF\n",
        objects.len() + 1
    );
    file.extend_from_slice(trailer.as_bytes());
    file
}

/// A page's content: the heading at 24 points, the lines at 13.
fn content(heading: &str, lines: &[&str]) -> Vec<u8> {
    let mut content = b"BT\n/F1 24 Tf\n72 750 Td\n".to_vec();
    content.extend(literal(heading));
    content.extend_from_slice(b" Tj\n/F1 13 Tf\n18 TL\n0 -42 Td\n");
    for line in lines {
        content.extend(literal(line));
        content.extend_from_slice(b" Tj T*\n");
    }
    content.extend_from_slice(b"ET");
    content
}

/// A string in parentheses. WinAnsiEncoding and Latin-1 agree from U+00A0 to U+00FF; anything above becomes `?`.
fn literal(text: &str) -> Vec<u8> {
    let mut bytes = vec![b'('];
    for character in text.chars() {
        if matches!(character, '(' | ')' | '\\') {
            bytes.push(b'\\');
        }
        bytes.push(u8::try_from(u32::from(character)).unwrap_or(b'?'));
    }
    bytes.push(b')');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(bytes: &[u8], wanted: &[u8]) -> usize {
        bytes.windows(wanted.len()).rposition(|window| window == wanted).unwrap()
    }

    #[test]
    fn cross_reference_table_points_at_every_object() {
        let file = document();
        let start = find(&file, b"startxref\n") + 10;
        let digits: Vec<u8> = file[start..].iter().copied().take_while(u8::is_ascii_digit).collect();
        let table: usize = String::from_utf8(digits).unwrap().parse().unwrap();
        assert!(file[table..].starts_with(b"xref\n0 9\n"));
        let entries = &file[table + 9..];
        assert_eq!(&entries[..20], b"0000000000 65535 f \n");
        for number in 1..9 {
            let entry = std::str::from_utf8(&entries[number * 20..number * 20 + 20]).unwrap();
            assert!(entry.ends_with(" 00000 n \n"), "{entry:?}");
            let offset: usize = entry[..10].parse().unwrap();
            assert!(file[offset..].starts_with(format!("{number} 0 obj\n").as_bytes()), "object {number}");
        }
        assert!(entries[9 * 20..].starts_with(b"trailer\n"));
        assert!(file.ends_with(b"%%EOF\n"));
    }

    #[test]
    fn stream_lengths_are_right() {
        for (heading, lines) in PAGES {
            let content = content(heading, lines);
            let wanted =
                [format!("/Length {} >>\nstream\n", content.len()).as_bytes(), &content, b"\nendstream"].concat();
            find(&document(), &wanted);
        }
    }

    #[test]
    fn parentheses_are_escaped_and_letters_are_one_byte() {
        assert_eq!(literal("a(ü)\\语"), b"(a\\(\xfc\\)\\\\?)");
    }

    #[test]
    fn every_line_is_latin1() {
        let lines = PAGES.iter().flat_map(|(heading, lines)| lines.iter().chain([heading]));
        assert!(lines.flat_map(|line| line.chars()).all(|character| u32::from(character) < 0x100));
    }
}
