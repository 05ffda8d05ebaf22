"""Writing SQL for a question on one table (WikiSQL; Zhong et al., 2017)."""

import dspy


class QuestionToSql(dspy.Signature):
    """Write the SQL query that answers the question from the table."""

    table: str = dspy.InputField(desc="CREATE TABLE statement")
    question: str = dspy.InputField(desc="what to find out")
    query: str = dspy.OutputField(desc="one SELECT statement")
