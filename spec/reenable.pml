/*
 * Disable (1), enable (2), disable (3), with signals in any order and repeated. Entries of asOf 0 (before 1) and of asOf 2
 * (made while it was enabled) lie in L2. Good are: entry 0 before 1, and what was read between 2 and 3.
 */
byte db = 0;
bool late1 = false;  /* D has elapsed since 1, and it has not been enabled again */
bool late3 = false;  /* D has elapsed since 3 */
bool fresh = false;
byte freshSeq = 0;   /* what had been committed when freshness was asked for */
byte applied = 0, tombstone = 0;

#ifdef REACH
#define accept() assert(false)
#else
#define accept() assert(!late3 && !(late1 && db == 1))
#endif

active proctype Identity() { db = 1; db = 2; db = 3 }

active proctype Clock() {
end:
  do
  :: atomic { db >= 1 && !late1 && !(fresh && freshSeq < 1) -> late1 = true }
  :: atomic { db == 3 && !late3 && !(fresh && freshSeq < 3) -> late3 = true
#ifdef REACH_LATE
       ; assert(false)
#endif
     }
  od
}

active proctype Signals() {
  byte seq, count = 0;
end:
  do
  :: count < 4 ->
     count++;
     atomic {
       if :: db >= 1 -> seq = 1 :: db >= 2 -> seq = 2 :: db >= 3 -> seq = 3 :: skip fi;
       if
       :: seq == 0
#ifdef REENABLE_ERASES
       :: seq == 2 -> tombstone = 0
#endif
#ifdef TOMBSTONE_OF_LAST_ARRIVAL
       :: seq > 0 -> tombstone = seq
#else
       :: seq > tombstone -> tombstone = seq
       :: seq > 0 && seq <= tombstone
#endif
       fi;
       seq = 0
     }
  od
}

active proctype Gateway() {
  byte count = 0, S, before;
end:
  do
  :: count < 3 ->
     count++;
     before = db;
     S = db;
     atomic {
       if :: S > applied -> applied = S; if :: S > tombstone -> tombstone = S :: else fi :: else fi;
       if
       :: (before < 1 && late1 && db == 1) || (before < 3 && late3)
       :: else -> if :: fresh && freshSeq >= before :: else -> fresh = true; freshSeq = before fi
       fi;
       S = 0; before = 0
     }
  :: fresh -> fresh = false; freshSeq = 0
  :: atomic { fresh && tombstone == 0 -> accept() }             /* the entry of asOf 0 */
  :: atomic { db >= 2 && fresh && tombstone <= 2 -> accept() }  /* the entry of asOf 2 */
  od
}
