//! Text files in several scripts, and the README of the demo library.
//!
//! Owns: names and contents of the library's text files.
//! Does not own: anything with a format.

/// Content type of all of them.
pub(super) const PLAIN: &str = "text/plain; charset=utf-8";

/// What to try in the mounted library.
pub(super) const README: &str = "\
This folder is an S3 bucket, mounted by objfs. Every file in it is one object,
and every change you make here becomes an object that any S3 program can read.
The bucket belongs to the demo: nothing of yours is touched.

Some things to try, in this folder:

  Look around       ls -lR
                    find . -name '*.txt' -exec head -n 1 {} +
  Read              open the book in Books/, the PDF in Documents/,
                    play Music/ and Videos/ with any player, and seek in them
  Write             date > note.txt; cat note.txt
                    cp -r Texts Copies
  Edit              open a file of Texts/ in your editor and save it
  Move and remove   mv note.txt Documents/; rm -r Copies
  Search            grep -r lighthouse .
  Watch             inotifywait -m -r . in one terminal, and write in another

To end the demo, leave this folder and run:

  fusermount3 -u MOUNTPOINT
";

/// Key and content of each text.
pub(super) const TEXTS: [(&str, &str); 10] = [
    (
        "Texts/Grüße aus Köln.txt",
        "Grüße aus Köln!\n\nHeute früh war der Fluß größer als gestern, und über der Brücke flogen Möwen.\n\
         Schöne Wünsche an alle, die gern lesen.\n",
    ),
    (
        "Texts/Déjà vu à l’été.txt",
        "Déjà vu à l’été\n\nLe garçon répétait l’histoire naïve d’une île où même les œufs chantaient.\n",
    ),
    (
        "Texts/Вечер у моря.txt",
        "Вечер у моря\n\nВечером мы сидели на берегу и слушали, как шумит море.\n\
         Потом зажёгся маяк, и корабль повернул к дому.\n",
    ),
    ("Texts/Καλημέρα.txt", "Καλημέρα\n\nΟ ήλιος βγήκε πάνω από το νησί και οι βάρκες έφυγαν για ψάρεμα.\n"),
    ("Texts/صباح الخير.txt", "صباح الخير\n\nأشرقت الشمس فوق البحر، وعاد الصيادون إلى الميناء بقواربهم.\n"),
    ("Texts/नमस्ते दुनिया.txt", "नमस्ते दुनिया\n\nआज आसमान साफ़ है और नदी के किनारे बच्चे पतंग उड़ा रहे हैं।\n"),
    ("Texts/你好，世界.txt", "你好，世界\n\n今天天气很好，我们在河边散步，看见一只白色的鸟。\n"),
    ("Texts/日記/雨の日.txt", "雨の日\n\n朝から雨が降っていた。傘をさして図書館へ行き、灯台の本を借りた。\n"),
    ("Texts/안녕하세요.txt", "안녕하세요\n\n오늘은 바람이 불고 하늘이 맑습니다. 등대까지 걸어갔습니다.\n"),
    (
        "Texts/Trip 🚂 to the sea 🌊.txt",
        "Trip 🚂 to the sea 🌊\n\n🧳 packed, 🎟️ bought, ☀️ ordered. Back on Sunday. 👩‍👧‍👦\n",
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_text_ends_its_last_line() {
        assert!(TEXTS.iter().map(|(_, text)| *text).chain([README]).all(|text| text.ends_with('\n')));
    }

    #[test]
    fn every_text_starts_with_its_name() {
        for (key, text) in TEXTS {
            let name = key.rsplit('/').next().unwrap().trim_end_matches(".txt");
            assert!(text.starts_with(name), "{key}");
        }
    }

    #[test]
    fn readme_fits_a_terminal() {
        assert!(README.lines().all(|line| line.chars().count() <= 80));
    }
}
