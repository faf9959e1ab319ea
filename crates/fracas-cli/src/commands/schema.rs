//! `fracas schema`: the JSON Schemas that are this tool's contracts.

use fracas_model::schema::{game_day_json_schema, guard_rails_json_schema, json_schema, schedule_json_schema};

use crate::{
    Session,
    args::{SchemaArgs, SchemaKind},
    error::CliError,
    exit, schema,
};

pub(crate) fn schema(session: &Session<'_>, given: &SchemaArgs) -> Result<u8, CliError> {
    let schema = match given.kind {
        SchemaKind::Experiment => json_schema(&session.world.catalogue),
        SchemaKind::GameDay => game_day_json_schema(&session.world.catalogue),
        SchemaKind::Schedule => schedule_json_schema(),
        SchemaKind::GuardRails => guard_rails_json_schema(),
        SchemaKind::Event => schema::event(),
        SchemaKind::Result => schema::result(),
        SchemaKind::Series => schema::series(),
        SchemaKind::Report => schema::report(),
        SchemaKind::Trend => schema::trend(),
        SchemaKind::Services => schema::services(),
    };
    // Never tagged: a schema with a key of its own would not be the published one.
    session.output.line(&format!("{schema:#}"))?;
    Ok(exit::PASS)
}
