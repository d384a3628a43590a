//! The consumer: from Kafka to rows.
