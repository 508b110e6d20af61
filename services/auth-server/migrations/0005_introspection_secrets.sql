CREATE TABLE "introspection_secrets" (
	"provider_id" text PRIMARY KEY NOT NULL,
	"context" text NOT NULL,
	"sealed" "bytea" NOT NULL,
	"updated_at" timestamp with time zone NOT NULL
);
