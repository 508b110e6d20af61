ALTER TABLE "signal_disables" DROP CONSTRAINT "signal_disables_pkey";--> statement-breakpoint
ALTER TABLE "signal_disables" ADD CONSTRAINT "signal_disables_user_id_provider_id_pk" PRIMARY KEY("user_id","provider_id");--> statement-breakpoint
ALTER TABLE "signal_disables" ADD COLUMN "disabled_at" timestamp (3) with time zone DEFAULT now() NOT NULL;