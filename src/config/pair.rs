//! One key of a table in a file, read as the type that is expected there. Plain values.

use toml_edit::{Item, Value};

use super::error::ConfigError;
use super::origin::{Origin, Setting};
use super::value::{ConfigValue, Given, read};

/// One key of a table with its value.
pub struct Pair<'a> {
    /// The key.
    pub key: &'a str,
    /// The value.
    pub item: &'a Item,
    /// Where the key stands.
    pub origin: Origin,
}

impl Pair<'_> {
    /// This value is wrong.
    pub fn wrong(&self, why: impl Into<String>) -> ConfigError {
        let (origin, key) = (self.origin.clone(), self.key.to_owned());
        ConfigError::Value { origin, key, why: why.into() }
    }

    /// The value as a setting of type `T` has it.
    pub fn read<T: ConfigValue>(&self) -> Result<T, ConfigError> {
        read(self.given()?).map_err(|why| self.wrong(why))
    }

    /// The same with its origin.
    pub fn setting<T: ConfigValue>(&self) -> Result<Setting<T>, ConfigError> {
        Ok(Setting { value: self.read()?, origin: self.origin.clone() })
    }

    /// The single value that it is.
    pub fn given(&self) -> Result<Given<'_>, ConfigError> {
        match self.item.as_value() {
            Some(Value::String(text)) => Ok(Given::Quoted(text.value())),
            Some(Value::Integer(number)) => Ok(Given::Integer(*number.value())),
            Some(Value::Boolean(value)) => Ok(Given::Boolean(*value.value())),
            _ => Err(self.wrong(format!("a single value is expected, not {}", kind(self.item)))),
        }
    }

    /// A list of texts, each of which `check` accepts.
    pub fn list<T>(
        &self,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Setting<Vec<T>>, ConfigError> {
        let expected = || self.wrong("a list of texts is expected: [\"…\", \"…\"]");
        let array = self.item.as_array().ok_or_else(expected)?;
        let one = |value: &Value| {
            check(value.as_str().ok_or_else(expected)?).map_err(|why| self.wrong(why))
        };
        let value = array.iter().map(one).collect::<Result<_, _>>()?;
        Ok(Setting { value, origin: self.origin.clone() })
    }
}

/// What an item is, in words.
fn kind(item: &Item) -> &'static str {
    match item {
        Item::None => "nothing",
        Item::Table(_) | Item::ArrayOfTables(_) => "a table",
        Item::Value(value) => match value {
            Value::String(_) => "a text",
            Value::Integer(_) => "a number",
            Value::Float(_) => "a fraction",
            Value::Boolean(_) => "true or false",
            Value::Datetime(_) => "a date",
            Value::Array(_) => "a list",
            Value::InlineTable(_) => "a table",
        },
    }
}
