/*
 * Claims that were never committed. The credential is valid throughout; forged signals claim that a change about it came.
 * After an honest watermark that was asked after the last of them had arrived, it must be usable from the caches again;
 * a claim that arrives after the question is kept, since the answer need not know it yet. Not a safety matter: without
 * this a single forged message would close the caches for good.
 */
byte db = 0;            /* changes of others */
byte claim = 0;         /* the newest sequence claimed about it; its entry has asOf 0 */
bool isAfterAsking = false;
bool fresh = false;

#define isUsable (fresh && claim == 0)
#ifdef REACH
#define mustBeUsable() assert(false)
#else
#define mustBeUsable() assert(isUsable)
#endif

active proctype Identity() { db = 1; db = 2 }

active proctype Forger() {
  byte seq, count = 0;
end:
  do
  :: count < 3 ->
     count++;
     atomic {
       if :: seq = 1 :: seq = 2 :: seq = 9 fi;
       if :: seq > claim -> claim = seq :: else fi;
       isAfterAsking = true;
       seq = 0
     }
  od
}

active proctype Gateway() {
  byte S, count = 0;
end:
  do
  :: count < 3 ->
     count++;
     isAfterAsking = false;
     S = db;
     atomic {
#ifdef REACH_LATE
       if :: claim > S && !isAfterAsking -> assert(false) :: else fi;
#endif
       if
       :: claim <= S -> claim = 0 /* settled: the answer has the true changes up to S */
#ifndef CLAIMS_STAY
       :: claim > S && !isAfterAsking -> claim = 0
       :: claim > S && isAfterAsking
#else
       :: claim > S
#endif
       fi;
       fresh = true;
       if :: isAfterAsking :: else -> mustBeUsable() fi;
       S = 0
     }
  :: fresh -> fresh = false
  od
}
