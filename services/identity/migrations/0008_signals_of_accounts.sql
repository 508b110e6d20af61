CREATE TABLE "signal_disables" (
	"user_id" text PRIMARY KEY NOT NULL,
	"provider_id" text NOT NULL
);
--> statement-breakpoint
ALTER TABLE "signal_disables" ADD CONSTRAINT "signal_disables_user_id_users_id_fk" FOREIGN KEY ("user_id") REFERENCES "public"."users"("id") ON DELETE no action ON UPDATE no action;