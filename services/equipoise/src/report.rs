//! `equipoise report energy`.

use equipoise_energy::{EnergyFigures, EnergyRow, Report};
use equipoise_proto::v1;
use equipoise_proto::v1::energy_service_client::EnergyServiceClient;

use crate::cli::{self, Grouping, ReportKind};
use crate::fleet::{connect, refused};
use crate::terminal::say;

pub(crate) async fn run(options: cli::Report) -> anyhow::Result<()> {
    let ReportKind::Energy(options) = options.kind;
    let mut client = EnergyServiceClient::new(connect(&options.control, &options.control_tls).await?);
    let (wire, by) = match options.by {
        Grouping::Pool => (v1::EnergyGrouping::Pool, equipoise_energy::Grouping::Pool),
        Grouping::Model => (v1::EnergyGrouping::Model, equipoise_energy::Grouping::Model),
        Grouping::Gpu => (v1::EnergyGrouping::Gpu, equipoise_energy::Grouping::Gpu),
        Grouping::Tenant => (v1::EnergyGrouping::Tenant, equipoise_energy::Grouping::Tenant),
    };
    let request = v1::EnergyReportRequest {
        by: wire.into(),
        start_unix_ns: 0,
        end_unix_ns: 0,
    };
    let answer = client
        .report(request)
        .await
        .map_err(|status| refused(&status))?
        .into_inner();
    let report = Report {
        by,
        rows: answer
            .rows
            .iter()
            .map(|row| EnergyRow {
                key: row.key.clone(),
                figures: figures(row),
            })
            .collect(),
        total: answer.total.as_ref().map(figures).unwrap_or_default(),
    };
    if options.json {
        say(&serde_json::to_string_pretty(&report)?);
    } else {
        say(report.render().trim_end());
    }
    Ok(())
}

fn figures(row: &v1::EnergyRow) -> EnergyFigures {
    EnergyFigures {
        measured_mj: row.measured_mj,
        attributed_mj: row.attributed_mj,
        wasted_mj: row.wasted_mj,
        idle_mj: row.idle_mj,
        unattributed_mj: row.unattributed_mj,
        requests: row.requests,
        prefill_tokens: row.prefill_tokens,
        decode_tokens: row.decode_tokens,
        span_ns: row.span_ns,
        counter_mj: row.counter_mj,
        power_mj: row.power_mj,
        modelled_mj: row.modelled_mj,
        flawed_intervals: row.flawed_intervals,
    }
}
