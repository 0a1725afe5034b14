//! Schemas: the fields that a team expects in a document, and whether a document has them.
//!
//! A schema is a list of fields, not a JSON Schema: crates for JSON Schema bring some 35 others, and their patterns would let clients
//! write regular expressions.

use cache_runtime::{KeyPart, cache_evict, cacheable};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::db::Db;
use crate::error::{Error, Result};
use crate::input::Text;

/// The most problems in a verdict. The first ones show what is wrong.
const MAX_PROBLEMS: usize = 20;

/// Every cached verdict about documents of this schema is evicted, however many there are.
#[cache_evict(tag = "schema:<name>")]
pub async fn set(db: &Db, name: &Text<64>, fields: &[Field]) -> Result<()> {
    let text = serde_json::to_string(fields).map_err(Error::internal)?;
    let set = sqlx::query(
        "INSERT INTO schemas (name, fields) VALUES ($1, $2)
         ON CONFLICT (name) DO UPDATE SET fields = excluded.fields",
    );
    let set = set.bind(name.as_str()).bind(text);
    set.execute(db.pool()).await?;
    Ok(())
}

/// Returns `None` if there is no such schema. That is not stored, so made-up names leave no entries.
#[cacheable(
    key = "validation:<name>:<document>",
    policy = "validations",
    tag = "schema:<name>",
    ignore = [db],
)]
pub async fn validate(db: &Db, name: &Text<64>, document: &Document) -> Result<Option<Verdict>> {
    let fields = sqlx::query_scalar("SELECT fields FROM schemas WHERE name = $1");
    let fields = fields.bind(name.as_str()).fetch_optional(db.pool());
    let Some(text): Option<String> = fields.await? else {
        return Ok(None);
    };
    let schema: Vec<Field> = serde_json::from_str(&text).map_err(Error::internal)?;
    Ok(Some(judge(&schema, &document.fields)))
}

/// A document to validate. Its key is a hash of its JSON in one spelling, so neither its length nor its layout matter.
#[derive(Clone, Debug, KeyPart)]
#[key_part(hash)]
pub struct Document {
    text: String,
    #[key_part(skip)]
    fields: Map<String, Value>,
}

impl From<Map<String, Value>> for Document {
    /// The map is sorted, so the order in the request does not matter.
    fn from(fields: Map<String, Value>) -> Self {
        let text = Value::Object(fields.clone()).to_string();
        Self { text, fields }
    }
}

words! {
    pub enum Kind {
        Text = "text",
        Number = "number",
        Boolean = "boolean",
        List = "list",
        Object = "object",
    }
}

impl Kind {
    fn admits(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::List => value.is_array(),
            Self::Object => value.is_object(),
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    pub name: Text<64>,
    pub kind: Kind,
    pub required: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    pub valid: bool,
    pub problems: Vec<Problem>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    pub field: String,
    pub detail: String,
}

fn judge(schema: &[Field], document: &Map<String, Value>) -> Verdict {
    let problem = |field: String, detail: String| Problem { field, detail };
    let declared = schema.iter().filter_map(|field| {
        let name = field.name.as_str();
        let detail = match document.get(name) {
            Some(value) if field.kind.admits(value) => return None,
            Some(_) => format!("it must be of the kind `{}`", field.kind.as_str()),
            None if field.required => "it is missing".to_owned(),
            None => return None,
        };
        Some(problem(name.to_owned(), detail))
    });
    let known = |name: &str| schema.iter().any(|field| field.name.as_str() == name);
    let others = document.keys().filter(|name| !known(name)).map(|name| {
        let shown: String = name.chars().take(64).collect();
        problem(shown, "the schema has no such field".to_owned())
    });
    let problems: Vec<_> = declared.chain(others).take(MAX_PROBLEMS).collect();
    let valid = problems.is_empty();
    Verdict { valid, problems }
}
