//! What a flag is set to, as it may be shown.

/// One flag and its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Its name, without the dashes.
    pub flag: String,
    /// Its value; of several ones each in turn, with commas between them.
    pub value: String,
    /// It was given on the command line.
    pub given: bool,
}
