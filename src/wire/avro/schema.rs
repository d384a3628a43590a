//! The writer's schema, as much of it as decoding needs.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use serde_json::{Map, Value};

const DEPTH_MAX: usize = 32;

#[derive(Clone)]
pub(in crate::wire) struct Schema(pub(super) Arc<Type>);

/// Names are resolved: a type that is used again by its name is shared.
pub(super) enum Type {
    Null,
    Boolean,
    /// `int` too: both are encoded alike.
    Long,
    Time(i64),
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<String>),
    Array(Arc<Type>),
    Map(Arc<Type>),
    Union(Vec<Arc<Type>>),
    Record(Vec<(String, Arc<Type>)>),
}

impl Schema {
    /// Refuses a schema whose root is not a record, or in which a type contains itself.
    pub(in crate::wire) fn parse(text: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(text).map_err(|error| format!("is no JSON: {error}"))?;
        let root = Parser::default().any(&value, "", 0)?;
        match *root {
            Type::Record(_) => Ok(Self(root)),
            _ => Err("is no record".to_owned()),
        }
    }
}

impl fmt::Debug for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schema(..)")
    }
}

#[derive(Default)]
struct Parser(HashMap<String, Arc<Type>>);

impl Parser {
    fn any(&mut self, value: &Value, namespace: &str, depth: usize) -> Result<Arc<Type>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("is nested deeper than {DEPTH_MAX} types"));
        }
        match value {
            Value::String(name) => self.by_name(name, namespace),
            Value::Array(variants) => {
                let variants = variants.iter().map(|variant| self.any(variant, namespace, depth + 1));
                Ok(Arc::new(Type::Union(variants.collect::<Result<_, _>>()?)))
            }
            Value::Object(object) => self.object(object, namespace, depth),
            other => Err(format!("has `{other}` where a type should be")),
        }
    }

    fn by_name(&self, name: &str, namespace: &str) -> Result<Arc<Type>, String> {
        if let Some(primitive) = primitive(name) {
            return Ok(Arc::new(primitive));
        }
        let known = self.0.get(&full_name(name, namespace)).or_else(|| self.0.get(name));
        known
            .cloned()
            .ok_or_else(|| format!("names a type `{name}` that it does not define before, or that holds itself"))
    }

    fn object(&mut self, object: &Map<String, Value>, namespace: &str, depth: usize) -> Result<Arc<Type>, String> {
        let inner = |key: &str| object.get(key).ok_or_else(|| format!("has a type without `{key}`"));
        let name = match inner("type")? {
            Value::String(name) => name.as_str(),
            nested => return self.any(nested, namespace, depth + 1),
        };
        let namespace = match object.get("namespace").and_then(Value::as_str) {
            Some(own) => own,
            None => object
                .get("name")
                .and_then(Value::as_str)
                .and_then(|name| name.rsplit_once('.'))
                .map_or(namespace, |(namespace, _)| namespace),
        };
        let found = match name {
            "long" => match object.get("logicalType").and_then(Value::as_str) {
                Some("timestamp-millis") => Type::Time(1_000),
                Some("timestamp-micros") => Type::Time(1_000_000),
                Some("timestamp-nanos") => Type::Time(1_000_000_000),
                _ => Type::Long,
            },
            "array" => Type::Array(self.any(inner("items")?, namespace, depth + 1)?),
            "map" => Type::Map(self.any(inner("values")?, namespace, depth + 1)?),
            "fixed" => {
                let size = inner("size")?.as_u64().and_then(|size| usize::try_from(size).ok());
                Type::Fixed(size.ok_or("has a fixed without a size")?)
            }
            "enum" => Type::Enum(list(inner("symbols")?)?.iter().map(text).collect::<Result<_, _>>()?),
            "record" | "error" => Type::Record(self.fields(inner("fields")?, namespace, depth + 1)?),
            name => return self.by_name(name, namespace),
        };
        let found = Arc::new(found);
        if matches!(*found, Type::Fixed(_) | Type::Enum(_) | Type::Record(_)) {
            self.0.insert(full_name(&text(inner("name")?)?, namespace), Arc::clone(&found));
        }
        Ok(found)
    }

    fn fields(&mut self, fields: &Value, namespace: &str, depth: usize) -> Result<Vec<(String, Arc<Type>)>, String> {
        let field = |field: &Value| {
            let missing = |key: &str| format!("has a field without `{key}`");
            let name = field.get("name").ok_or_else(|| missing("name"))?;
            let of = field.get("type").ok_or_else(|| missing("type"))?;
            Ok((text(name)?, self.any(of, namespace, depth)?))
        };
        list(fields)?.iter().map(field).collect()
    }
}

fn primitive(name: &str) -> Option<Type> {
    Some(match name {
        "null" => Type::Null,
        "boolean" => Type::Boolean,
        "int" | "long" => Type::Long,
        "float" => Type::Float,
        "double" => Type::Double,
        "bytes" => Type::Bytes,
        "string" => Type::String,
        _ => return None,
    })
}

fn full_name(name: &str, namespace: &str) -> String {
    if name.contains('.') || namespace.is_empty() { name.to_owned() } else { format!("{namespace}.{name}") }
}

fn list(value: &Value) -> Result<&Vec<Value>, String> {
    value.as_array().ok_or_else(|| format!("has `{value}` where a list should be"))
}

fn text(value: &Value) -> Result<String, String> {
    value.as_str().map(str::to_owned).ok_or_else(|| format!("has `{value}` where a name should be"))
}
