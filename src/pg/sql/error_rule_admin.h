// error_rule_admin.h - the statements that set and remove error rules.
#pragma once

#include "pg/server/postgres_api.h"

// A row of keypool.error_rules. Null, or a status of 0: not given.
struct ErrorRuleRow {
  text *provider;
  int32 status;
  text *code;
  text *answer_class;
  text *scope;
};

// Raises 22023 if it cannot be a rule; the class may be missing.
void check_error_rule(const ErrorRuleRow &rule);

void set_error_rule(const ErrorRuleRow &rule);
void remove_error_rule(const ErrorRuleRow &rule);
