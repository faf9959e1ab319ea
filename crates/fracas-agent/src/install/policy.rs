//! The policy file that an installation begins with: every rule with its meaning and what holds without it, all of them
//! comments, so that whoever reads it knows what may be changed.

use fracas_model::{policy::policy_shape, shape::Shape};

/// The file's text.
pub fn template() -> String {
    let mut text = String::from(
        "# What this host's owner allows. It beats any controller, and no controller can change it; the agent follows each change\n\
         # within a second. `fracas-agent policy show` prints the rules that hold. Take away a # to change one.\n\
         apiVersion: fracas/v1\nkind: HostPolicy\n",
    );
    if let Shape::Object(fields) = policy_shape() {
        for field in fields {
            // Those without a default are the two lines above.
            let Some(default) = field.default else { continue };
            text += &format!("\n# {}\n# {}: {default}\n", field.doc, field.name);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use fracas_model::policy::{Policy, read_policy};

    use super::*;

    #[test]
    fn as_it_is_and_with_every_comment_taken_away_the_built_in_rules_hold() {
        let text = template();
        assert_eq!(read_policy("template", &text), Ok(Policy::builtin()));
        let is_rule = |line: &str| {
            line.strip_prefix("# ").and_then(|l| l.split_once(": ")).is_some_and(|(k, _)| !k.contains(' '))
        };
        let bare: String = text
            .lines()
            .map(|line| if is_rule(line) { line.trim_start_matches("# ").to_owned() } else { line.to_owned() })
            .map(|line| line + "\n")
            .collect();
        assert_ne!(bare, text);
        assert_eq!(read_policy("template", &bare), Ok(Policy::builtin()), "{bare}");
    }
}
