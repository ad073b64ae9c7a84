//! The schema of a result: its name and version, and `ringmq-bench schema`.

use std::process::ExitCode;

use serde::Serialize;

use crate::screen;

pub(crate) const TEXT: &str = include_str!("schema.json");

/// What a result says of its own shape. Within a version keys are only added.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Schema {
    pub name: &'static str,
    pub version: u32,
}

pub(crate) const RESULT: Schema = Schema { name: "ringmq-bench/result", version: 1 };

/// Prints the JSON Schema.
pub(crate) fn print() -> Result<ExitCode, String> {
    screen::print(TEXT)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_that_of_the_result() {
        let schema: serde_json::Value = serde_json::from_str(TEXT).expect("JSON");
        let told = &schema["properties"]["schema"]["properties"];
        assert_eq!(told["name"]["const"], RESULT.name);
        assert_eq!(told["version"]["const"], RESULT.version);
    }
}
