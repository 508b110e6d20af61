CREATE TABLE "received_signals" (
	"provider_id" text NOT NULL,
	"id_sha256" "bytea" NOT NULL,
	"received_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "received_signals_provider_id_id_sha256_pk" PRIMARY KEY("provider_id","id_sha256")
);
