//! The time syntaxes of Thanos' flags and files.
