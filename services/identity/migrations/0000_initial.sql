CREATE TABLE "api_keys" (
	"id" text PRIMARY KEY NOT NULL,
	"tenant_id" text NOT NULL,
	"user_id" text NOT NULL,
	"name" text NOT NULL,
	"secret_sha256" "bytea" NOT NULL,
	"scopes" text[],
	"audiences" text[],
	"created_at" timestamp (3) with time zone NOT NULL,
	"expires_at" timestamp (3) with time zone,
	"last_used_at" timestamp (3) with time zone,
	"revoked_epoch" bigint,
	"revoked_seq" bigint,
	"revoked_at" timestamp (3) with time zone
);
--> statement-breakpoint
CREATE TABLE "changes" (
	"seq" bigint PRIMARY KEY NOT NULL,
	"epoch" bigint NOT NULL,
	"chain" "bytea" NOT NULL,
	"payload" text NOT NULL,
	"at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "external_identities" (
	"provider_id" text NOT NULL,
	"subject" text NOT NULL,
	"user_id" text,
	"created_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "external_identities_provider_id_subject_pk" PRIMARY KEY("provider_id","subject")
);
--> statement-breakpoint
CREATE TABLE "idempotency_keys" (
	"actor" text NOT NULL,
	"key" text NOT NULL,
	"request_sha256" "bytea" NOT NULL,
	"body" jsonb,
	"created_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "idempotency_keys_actor_key_pk" PRIMARY KEY("actor","key")
);
--> statement-breakpoint
CREATE TABLE "log_head" (
	"id" smallint PRIMARY KEY DEFAULT 1 NOT NULL,
	"epoch" bigint NOT NULL,
	"seq" bigint NOT NULL,
	"chain" "bytea" NOT NULL,
	"history_id" text NOT NULL,
	"min_signing_generation" integer DEFAULT 1 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "provider_audiences" (
	"issuer" text NOT NULL,
	"audience" text NOT NULL,
	"provider_id" text NOT NULL,
	CONSTRAINT "provider_audiences_issuer_audience_pk" PRIMARY KEY("issuer","audience")
);
--> statement-breakpoint
CREATE TABLE "providers" (
	"id" text PRIMARY KEY NOT NULL,
	"tenant_id" text NOT NULL,
	"issuer" text NOT NULL,
	"jwks_uri" text,
	"algorithms" text[] NOT NULL,
	"claim_mapping" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"provisioning" text NOT NULL,
	"is_disabled" boolean DEFAULT false NOT NULL,
	"revision" bigint DEFAULT 0 NOT NULL,
	"status_epoch" bigint,
	"status_seq" bigint,
	"created_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "publisher_progress" (
	"id" smallint PRIMARY KEY DEFAULT 1 NOT NULL,
	"published_seq" bigint DEFAULT 0 NOT NULL
);
--> statement-breakpoint
CREATE TABLE "revoked_credentials" (
	"signing_input_sha256" "bytea" PRIMARY KEY NOT NULL,
	"revoked_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
CREATE TABLE "revoked_sessions" (
	"provider_id" text NOT NULL,
	"session_id" text NOT NULL,
	"epoch" bigint NOT NULL,
	"seq" bigint NOT NULL,
	"revoked_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "revoked_sessions_provider_id_session_id_pk" PRIMARY KEY("provider_id","session_id")
);
--> statement-breakpoint
CREATE TABLE "session_cutoffs" (
	"provider_id" text NOT NULL,
	"subject" text NOT NULL,
	"issued_until" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "session_cutoffs_provider_id_subject_pk" PRIMARY KEY("provider_id","subject")
);
--> statement-breakpoint
CREATE TABLE "tenants" (
	"id" text PRIMARY KEY NOT NULL,
	"slug" text NOT NULL,
	"name" text NOT NULL,
	"token_ttl_seconds" integer NOT NULL,
	"max_staleness_ms" integer NOT NULL,
	"is_suspended" boolean DEFAULT false NOT NULL,
	"status_epoch" bigint,
	"status_seq" bigint,
	"created_at" timestamp (3) with time zone NOT NULL,
	CONSTRAINT "tenants_slug_unique" UNIQUE("slug")
);
--> statement-breakpoint
CREATE TABLE "users" (
	"id" text PRIMARY KEY NOT NULL,
	"tenant_id" text NOT NULL,
	"email" text,
	"display_name" text,
	"entitlements" text[] DEFAULT '{}' NOT NULL,
	"attributes" jsonb DEFAULT '{}'::jsonb NOT NULL,
	"is_disabled" boolean DEFAULT false NOT NULL,
	"status_epoch" bigint,
	"status_seq" bigint,
	"created_at" timestamp (3) with time zone NOT NULL
);
--> statement-breakpoint
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_tenant_id_tenants_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "api_keys" ADD CONSTRAINT "api_keys_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "external_identities" ADD CONSTRAINT "external_identities_provider_id_providers_id_fk" FOREIGN KEY ("provider_id") REFERENCES "public"."providers"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "external_identities" ADD CONSTRAINT "external_identities_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "provider_audiences" ADD CONSTRAINT "provider_audiences_provider_id_providers_id_fk" FOREIGN KEY ("provider_id") REFERENCES "public"."providers"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "providers" ADD CONSTRAINT "providers_tenant_id_tenants_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
ALTER TABLE "users" ADD CONSTRAINT "users_tenant_id_tenants_id_fk" FOREIGN KEY ("tenant_id") REFERENCES "public"."tenants"("id") ON DELETE no action ON UPDATE no action;--> statement-breakpoint
CREATE INDEX "api_keys_by_user" ON "api_keys" USING btree ("user_id","id");--> statement-breakpoint
CREATE INDEX "external_identities_by_user" ON "external_identities" USING btree ("user_id");--> statement-breakpoint
CREATE INDEX "idempotency_keys_by_time" ON "idempotency_keys" USING btree ("created_at","actor","key");--> statement-breakpoint
CREATE INDEX "provider_audiences_by_provider" ON "provider_audiences" USING btree ("provider_id");--> statement-breakpoint
CREATE INDEX "providers_by_tenant" ON "providers" USING btree ("tenant_id","id");--> statement-breakpoint
CREATE INDEX "users_by_tenant" ON "users" USING btree ("tenant_id","id");