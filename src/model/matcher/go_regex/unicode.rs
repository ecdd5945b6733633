//! Classes by a Unicode property: general categories and scripts, as Go's `unicode` package has them.

use super::{NOTHING, Refusal, Translator, invalid};

/// The general categories, and in what kind of class they are found.
const CATEGORIES: &str = "C Cc Cf Cn Co Cs L LC Ll Lm Lo Lt Lu M Mc Me Mn N Nd Nl No P Pc Pd Pe Pf Pi Po Ps S Sc Sk Sm \
                          So Z Zl Zp Zs";

/// The long names of the categories (Go 1.25 and later).
const CATEGORY_NAMES: &str = "Cased_Letter Close_Punctuation Combining_Mark Connector_Punctuation Control \
    Currency_Symbol Dash_Punctuation Decimal_Number Enclosing_Mark Final_Punctuation Format Initial_Punctuation Letter \
    Letter_Number Line_Separator Lowercase_Letter Mark Math_Symbol Modifier_Letter Modifier_Symbol Nonspacing_Mark \
    Number Open_Punctuation Other Other_Letter Other_Number Other_Punctuation Other_Symbol Paragraph_Separator \
    Private_Use Punctuation Separator Space_Separator Spacing_Mark Surrogate Symbol Titlecase_Letter Unassigned \
    Uppercase_Letter cntrl digit punct";

/// The scripts of Unicode 15.
const SCRIPTS: &str = "Adlam Ahom Anatolian_Hieroglyphs Arabic Armenian Avestan Balinese Bamum Bassa_Vah Batak Bengali \
    Bhaiksuki Bopomofo Brahmi Braille Buginese Buhid Canadian_Aboriginal Carian Caucasian_Albanian Chakma Cham Cherokee \
    Chorasmian Common Coptic Cuneiform Cypriot Cypro_Minoan Cyrillic Deseret Devanagari Dives_Akuru Dogra Duployan \
    Egyptian_Hieroglyphs Elbasan Elymaic Ethiopic Georgian Glagolitic Gothic Grantha Greek Gujarati Gunjala_Gondi \
    Gurmukhi Han Hangul Hanifi_Rohingya Hanunoo Hatran Hebrew Hiragana Imperial_Aramaic Inherited Inscriptional_Pahlavi \
    Inscriptional_Parthian Javanese Kaithi Kannada Katakana Kawi Kayah_Li Kharoshthi Khitan_Small_Script Khmer Khojki \
    Khudawadi Lao Latin Lepcha Limbu Linear_A Linear_B Lisu Lycian Lydian Mahajani Makasar Malayalam Mandaic Manichaean \
    Marchen Masaram_Gondi Medefaidrin Meetei_Mayek Mende_Kikakui Meroitic_Cursive Meroitic_Hieroglyphs Miao Modi \
    Mongolian Mro Multani Myanmar Nabataean Nag_Mundari Nandinagari New_Tai_Lue Newa Nko Nushu Nyiakeng_Puachue_Hmong \
    Ogham Ol_Chiki Old_Hungarian Old_Italic Old_North_Arabian Old_Permic Old_Persian Old_Sogdian Old_South_Arabian \
    Old_Turkic Old_Uyghur Oriya Osage Osmanya Pahawh_Hmong Palmyrene Pau_Cin_Hau Phags_Pa Phoenician Psalter_Pahlavi \
    Rejang Runic Samaritan Saurashtra Sharada Shavian Siddham SignWriting Sinhala Sogdian Sora_Sompeng Soyombo \
    Sundanese Syloti_Nagri Syriac Tagalog Tagbanwa Tai_Le Tai_Tham Tai_Viet Takri Tamil Tangsa Tangut Telugu Thaana \
    Thai Tibetan Tifinagh Tirhuta Toto Ugaritic Vai Vithkuqi Wancho Warang_Citi Yezidi Yi Zanabazar_Square";

impl Translator<'_> {
    /// `\pN`, `\p{Name}`, `\P..` and `\p{^..}`, as a class of the `regex` crate in brackets.
    pub(super) fn unicode_class(&mut self) -> Result<String, Refusal> {
        let start = self.at;
        let rest = self.rest();
        let mut negated = rest.starts_with("\\P");
        self.at += 2;
        let name = match self.bump() {
            Some('{') => {
                let Some(end) = rest.find('}') else {
                    return Err(invalid("invalid character class range", rest));
                };
                self.at = start + end + 1;
                &rest[3..end]
            }
            _ => &self.pattern[start + 2..self.at],
        };
        let name = match name.strip_prefix('^') {
            Some(name) => {
                negated = !negated;
                name
            }
            None => name,
        };
        let Some(class) = property(name) else {
            return self.invalid("invalid character class range", start);
        };
        self.count_unicode()?;
        Ok(match (class, negated) {
            (Property::Surrogates, false) => NOTHING.to_owned(),
            (Property::Surrogates, true) => r"[\x{0}-\x{10FFFF}]".to_owned(),
            (Property::Members(members), false) => format!("[{members}]"),
            (Property::Members(members), true) => format!("[^{members}]"),
        })
    }
}

enum Property {
    /// No text of ours holds any.
    Surrogates,
    Members(String),
}

/// A property by its name. Case, spaces, `_` and `-` do not count, as in Go 1.25 and later. Those versions forget the
/// scripts whose names have several words; older ones know them as written here, and so do we.
fn property(name: &str) -> Option<Property> {
    let members = match canonical(name).as_str() {
        "any" => r"\x{0}-\x{10FFFF}".to_owned(),
        "ascii" => r"\x00-\x7F".to_owned(),
        "assigned" => r"\P{gc=Cn}".to_owned(),
        "cs" | "surrogate" => return Some(Property::Surrogates),
        canonical if has(CATEGORIES, canonical) || has(CATEGORY_NAMES, canonical) => format!(r"\p{{gc={canonical}}}"),
        canonical if has(SCRIPTS, canonical) => format!(r"\p{{sc={canonical}}}"),
        _ => return None,
    };
    Some(Property::Members(members))
}

fn has(names: &str, name: &str) -> bool {
    names.split(' ').any(|known| canonical(known) == name)
}

fn canonical(name: &str) -> String {
    let signs = name.chars().filter(|char| !matches!(char, '_' | '-' | ' '));
    signs.map(|char| char.to_ascii_lowercase()).collect()
}
