//! What the guest is told, as `key=value` words on its kernel's command line, and how it tells.

use std::str::FromStr;

/// The words.
pub(crate) struct Words(Vec<String>);

impl Words {
    /// Those this program was started with.
    pub(crate) fn given() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// The value of a word; `None` when it was not given.
    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
    }

    /// The value of a number that must be given.
    pub(crate) fn number<T: FromStr>(&self, key: &str) -> T {
        let text = self.text(key).unwrap_or_else(|| panic!("no word {key}="));
        text.parse().unwrap_or_else(|_| panic!("{key}={text} is no number"))
    }
}

/// One line for whoever reads the serial line. A guest that is cut right after it has said it.
pub(crate) fn say(text: &str) {
    println!("power {text}");
}
