CREATE TABLE "clients" (
	"client_id" text PRIMARY KEY NOT NULL,
	"jwks" jsonb NOT NULL,
	"grant_types" jsonb NOT NULL,
	"updated_at" timestamp with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "signing_keys" (
	"kid" text PRIMARY KEY NOT NULL,
	"generation" integer NOT NULL,
	"algorithm" text NOT NULL,
	"public_jwk" jsonb NOT NULL,
	"private_jwk" jsonb NOT NULL,
	"created_at" timestamp with time zone NOT NULL,
	"not_after" timestamp with time zone,
	CONSTRAINT "signing_keys_generation_unique" UNIQUE("generation")
);
