//! `KEY=VALUE` arguments.

use std::str::FromStr;

use crate::Error;

/// The arguments after the name of the work.
#[derive(Clone, Debug, Default)]
pub struct Args {
    pairs: Vec<(String, String)>,
}

impl Args {
    /// Splits the arguments at their first `=`.
    ///
    /// # Errors
    ///
    /// For an argument without a `=`.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Args, Error> {
        let pair = |argument: String| match argument.split_once('=') {
            Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
            None => Err(format!("`{argument}` is not KEY=VALUE").into()),
        };
        Ok(Args { pairs: arguments.into_iter().map(pair).collect::<Result<_, Error>>()? })
    }

    /// The value of the last `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.pairs.iter().rev().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    /// The value of `key` as text.
    pub fn text<'a>(&'a self, key: &str, default: &'a str) -> &'a str {
        self.get(key).unwrap_or(default)
    }

    /// The value of `key` as a number.
    ///
    /// # Errors
    ///
    /// If it is not a number.
    pub fn number<T: FromStr>(&self, key: &str, default: T) -> Result<T, Error> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.parse().map_err(|_| format!("`{key}={value}`: not a number that fits").into())
    }

    /// Whether `key` is there and neither `0` nor empty.
    pub fn flag(&self, key: &str) -> bool {
        !matches!(self.get(key), None | Some("" | "0"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_a_key_counts() {
        let args = Args::parse(["depth=1", "depth=32", "file=/a=b"].map(str::to_owned)).unwrap();
        assert_eq!(args.number("depth", 7).unwrap(), 32);
        assert_eq!(args.number("n", 7).unwrap(), 7);
        assert_eq!(args.text("file", ""), "/a=b");
        assert!(args.number::<u8>("file", 0).is_err() && !args.flag("fast"));
        assert!(Args::parse(["depth".to_owned()]).is_err());
    }
}
