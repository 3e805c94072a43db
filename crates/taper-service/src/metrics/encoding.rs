//! How the metrics get onto the page.

use std::fmt;
use std::sync::atomic::Ordering;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::{BUCKETS, Counter, Durations, Each, Gauge, Label, Shown, Spent, Table};

const NANOS: f64 = 1e9;

impl EncodeMetric for Counter {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_counter::<NoLabelSet, _, u64>(&self.get(), None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl EncodeMetric for Spent {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let spent = seconds(self.0.load(Ordering::Relaxed));
        encoder.encode_counter::<NoLabelSet, _, u64>(&spent, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl EncodeMetric for Gauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&self.get())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

impl EncodeMetric for Durations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let ends = BUCKETS.iter().map(|nanos| seconds(*nanos)).chain([f64::INFINITY]);
        let counts = self.0.counts.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = ends.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum = seconds(self.0.nanos.load(Ordering::Relaxed));
        encoder.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }
}

impl<const N: usize> EncodeMetric for Table<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (at, cell) in self.0.cells.iter().enumerate() {
            let count = cell.load(Ordering::Relaxed);
            if count == 0 && self.0.shown == Shown::Counted {
                continue;
            }
            let says = says(&self.0.labels, at);
            encoder
                .encode_family(&says)?
                .encode_counter::<NoLabelSet, _, u64>(&count, None)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

impl<M: EncodeMetric> EncodeMetric for Each<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        for (value, metric) in self.label.values.iter().zip(&self.metrics) {
            let says = [(self.label.name, value.as_str())];
            metric.encode(encoder.encode_family(&says)?)?;
        }
        Ok(())
    }

    fn metric_type(&self) -> MetricType {
        // Without values there is nothing that has a type.
        self.metrics
            .first()
            .map_or(MetricType::Unknown, EncodeMetric::metric_type)
    }
}

/// What the labels of a table say at a cell: the last of them changes fastest.
fn says<const N: usize>(labels: &[Label; N], mut at: usize) -> Vec<(&'static str, &str)> {
    let mut says = Vec::with_capacity(N);
    for label in labels.iter().rev() {
        let values = label.values.len().max(1);
        let value = label.values.get(at % values).map_or("", String::as_str);
        says.push((label.name, value));
        at /= values;
    }
    says.reverse();
    says
}

/// Nanoseconds as seconds. Rounding begins after 104 days.
fn seconds(nanos: u64) -> f64 {
    #[allow(clippy::cast_precision_loss)]
    let nanos = nanos as f64;
    nanos / NANOS
}
